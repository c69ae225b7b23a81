// Says what was understood.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
)

func main() {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		sum := sha256.Sum256(body)
		data, _ := json.Marshal(map[string]interface{}{
			"method": r.Method, "raw": r.RequestURI, "host": r.Host, "a": strings.Join(r.Header["X-A"], ", "),
			"length": len(body), "sha256": hex.EncodeToString(sum[:]),
		})
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data)
	})
	if http.ListenAndServe("127.0.0.1:"+os.Args[1], handler) != nil {
		os.Exit(1)
	}
}
