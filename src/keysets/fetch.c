/* keysets/fetch.c - a key set from a URL; the only file that includes libcurl.
 *
 * Room       keysets/. Many fetches side by side on the room's thread, so that a slow issuer holds
 *            up no other one.
 *
 * What is trusted is TLS and nothing else: certificates and names are checked, redirects go to
 * https only, no other protocol is spoken, and http reaches this machine only, whatever its name is
 * looked up as. Each fetch makes its own connection: they are minutes apart, and issuers move.
 */
#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "keysets/keysets_priv.h"

#define USER_AGENT "stateway/" SW_VERSION

struct keysets_fetcher {
    CURLM *multi;
    struct curl_slist *headers;
    keysets_fetched_fn *fn;
    uint32_t fetch_ms;
    const char *ca_file, *ca_folder; /* NULL: the system's */
    struct sw_link running;
};

struct fetch {
    struct sw_link link; /* in running */
    CURL *easy;
    struct sw_keyset *keyset;
    size_t len;
    bool too_long, outside;
    char why[CURL_ERROR_SIZE];
    char text[SW_JWKS_BYTES_MAX];
};

/* ---- what the answer says ---------------------------------------------------------------------
 */

int64_t sw_keysets__max_age(struct sw_slice cache_control)
{
    struct sw_slice directive, name, value, rest = cache_control;
    int64_t fresh = -1;

    while (rest.len > 0) {
        uint64_t seconds;

        (void)sw_slice_cut(rest, ',', &directive, &rest);
        (void)sw_slice_cut(sw_slice_trim(directive), '=', &name, &value);
        if (sw_slice_eq_nocase(name, SW_S("no-store")) ||
            sw_slice_eq_nocase(name, SW_S("no-cache"))) {
            return 0;
        }
        if (value.len >= 2 && value.ptr[0] == '"' && value.ptr[value.len - 1] == '"') {
            value = sw_slice_of(value.ptr + 1, value.len - 2); /* RFC 9111, 5.2: both forms */
        }
        if (sw_slice_eq_nocase(name, SW_S("max-age")) && sw_slice_u64(value, &seconds)) {
            int64_t age = (int64_t)SW_MIN(seconds, (uint64_t)INT32_MAX);

            fresh = fresh < 0 ? age : SW_MIN(fresh, age);
        }
    }
    return fresh;
}

static int64_t fresh_of(CURL *easy)
{
    struct curl_header *h;
    int64_t fresh = -1;
    uint64_t age;

    for (size_t i = 0;
         curl_easy_header(easy, "Cache-Control", i, CURLH_HEADER, -1, &h) == CURLHE_OK; i++) {
        int64_t said = sw_keysets__max_age(sw_slice_cstr(h->value));

        fresh = said < 0 ? fresh : fresh < 0 ? said : SW_MIN(fresh, said);
    }
    if (fresh > 0 && curl_easy_header(easy, "Age", 0, CURLH_HEADER, -1, &h) == CURLHE_OK &&
        sw_slice_u64(sw_slice_cstr(h->value), &age)) {
        fresh = age < (uint64_t)fresh ? fresh - (int64_t)age : 0;
    }
    return fresh;
}

/* ---- libcurl's callbacks ----------------------------------------------------------------------
 */

static size_t on_body(char *ptr, size_t size, size_t count, void *arg)
{
    struct fetch *one = arg;
    size_t len = size * count; /* size is 1 */

    if (len > sizeof(one->text) - one->len) {
        one->too_long = true;
        return 0; /* ends the transfer */
    }
    memcpy(one->text + one->len, ptr, len);
    one->len += len;
    return len;
}

static bool is_loopback(const struct curl_sockaddr *a)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;

    if (a->family == AF_INET && a->addrlen >= sizeof(in)) {
        memcpy(&in, &a->addr, sizeof(in));
        return ntohl(in.sin_addr.s_addr) >> 24 == 127;
    }
    if (a->family == AF_INET6 && a->addrlen >= sizeof(in6)) {
        memcpy(&in6, &a->addr, sizeof(in6));
        return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
    }
    return false;
}

static curl_socket_t on_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct fetch *one = arg;

    (void)purpose;
    if (!is_loopback(address)) {
        one->outside = true;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* ---- one fetch --------------------------------------------------------------------------------
 */

#define SET(option, value) (ok = ok && curl_easy_setopt(one->easy, (option), (value)) == CURLE_OK)

static bool prepare(const struct keysets_fetcher *f, struct fetch *one)
{
    bool https = !sw_slice_starts_nocase(sw_slice_cstr(one->keyset->source), SW_S("http:"));
    bool ok = true;

    SET(CURLOPT_URL, one->keyset->source);
    SET(CURLOPT_PROTOCOLS_STR, https ? "https" : "http");
    SET(CURLOPT_REDIR_PROTOCOLS_STR, "https");
    SET(CURLOPT_FOLLOWLOCATION, 1L);
    SET(CURLOPT_MAXREDIRS, (long)SW_KEYSET_REDIRECTS_MAX);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_HTTPHEADER, f->headers);
    SET(CURLOPT_USERAGENT, USER_AGENT);
    SET(CURLOPT_TIMEOUT_MS, (long)f->fetch_ms);
    SET(CURLOPT_MAXFILESIZE,
        (long)SW_JWKS_BYTES_MAX); /* early, where the answer tells its length */
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_QUICK_EXIT, 1L); /* at the end of the time do not wait for a name server */
    SET(CURLOPT_FRESH_CONNECT, 1L);
    SET(CURLOPT_FORBID_REUSE, 1L);
    SET(CURLOPT_DNS_CACHE_TIMEOUT, 0L);
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_ERRORBUFFER, one->why);
    SET(CURLOPT_PRIVATE, one);
    SET(CURLOPT_WRITEDATA, one);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    if (f->ca_file != NULL) {
        SET(CURLOPT_CAINFO, f->ca_file);
    }
    if (f->ca_folder != NULL) {
        SET(CURLOPT_CAPATH, f->ca_folder);
    }
    if (!https) {
        SET(CURLOPT_PROXY, ""); /* none, whatever the environment says */
        SET(CURLOPT_OPENSOCKETDATA, one);
        SET(CURLOPT_OPENSOCKETFUNCTION, on_socket);
    }
    return ok;
}

static void fetch_free(struct keysets_fetcher *f, struct fetch *one)
{
    sw_link_remove(&one->link);
    (void)curl_multi_remove_handle(f->multi, one->easy); /* nothing, when it was not added */
    curl_easy_cleanup(one->easy);
    free(one);
}

bool sw_keysets__fetch(struct keysets_fetcher *f, struct sw_keyset *ks)
{
    struct fetch *one = calloc(1, sizeof(*one));

    if (one == NULL) {
        return false;
    }
    one->keyset = ks;
    one->easy = curl_easy_init();
    if (one->easy == NULL) {
        free(one);
        return false;
    }
    sw_list_push_back(&f->running, &one->link);
    if (!prepare(f, one) || curl_multi_add_handle(f->multi, one->easy) != CURLM_OK) {
        fetch_free(f, one);
        return false;
    }
    return true;
}

static void fetch_end(struct keysets_fetcher *f, struct fetch *one, CURLcode code)
{
    struct keysets_fetched fetched = {.fresh_s = -1};
    char status_why[64];
    long status = 0;

    (void)curl_easy_getinfo(one->easy, CURLINFO_RESPONSE_CODE, &status);
    if (one->too_long || code == CURLE_FILESIZE_EXCEEDED) {
        fetched.why = sw_err_text(SW_E_JWKS_LARGE);
    } else if (one->outside) {
        fetched.why = "http is for this machine only (loopback); use https";
    } else if (code != CURLE_OK) {
        fetched.why = one->why[0] != '\0' ? one->why : curl_easy_strerror(code);
    } else if (status != 200) {
        struct sw_out out = sw_out_init(status_why, sizeof(status_why) - 1);

        sw_out_lit(&out, "the answer has status ");
        sw_out_i64(&out, status);
        status_why[out.len] = '\0';
        fetched.why = status_why;
    } else {
        fetched.text = sw_slice_of(one->text, one->len);
        fetched.fresh_s = fresh_of(one->easy);
    }
    f->fn(one->keyset, &fetched);
    fetch_free(f, one);
}

/* ---- all of them ------------------------------------------------------------------------------
 */

enum sw_err sw_keysets__fetcher_new(uint32_t fetch_ms, keysets_fetched_fn *fn,
                                    struct keysets_fetcher **ret_fetcher)
{
    struct keysets_fetcher *f = calloc(1, sizeof(*f));

    if (f == NULL) {
        return SW_E_NO_MEMORY;
    }
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(f);
        return SW_E_NO_MEMORY;
    }
    f->fn = fn;
    f->fetch_ms = fetch_ms;
    f->ca_file = secure_getenv("SSL_CERT_FILE");
    f->ca_folder = secure_getenv("SSL_CERT_DIR");
    sw_list_init(&f->running);
    f->multi = curl_multi_init();
    f->headers = curl_slist_append(NULL, "Accept: application/jwk-set+json, application/json");
    if (f->multi == NULL || f->headers == NULL) {
        sw_keysets__fetcher_free(f);
        return SW_E_NO_MEMORY;
    }
    *ret_fetcher = f;
    return SW_OK;
}

void sw_keysets__fetcher_free(struct keysets_fetcher *f)
{
    if (f == NULL) {
        return;
    }
    while (!sw_list_empty(&f->running)) {
        fetch_free(f, SW_CONTAINER(f->running.next, struct fetch, link));
    }
    curl_slist_free_all(f->headers);
    (void)curl_multi_cleanup(f->multi);
    curl_global_cleanup();
    free(f);
}

void sw_keysets__fetcher_run(struct keysets_fetcher *f)
{
    CURLMsg *message;
    int running, left;

    (void)curl_multi_perform(f->multi, &running); /* what fails is one fetch's message */
    while ((message = curl_multi_info_read(f->multi, &left)) != NULL) {
        if (message->msg == CURLMSG_DONE) {
            CURLcode code = message->data.result;
            char *one = NULL;

            (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &one);
            SW_ASSERT(one != NULL);
            fetch_end(f, (struct fetch *)(void *)one, code); /* message is gone with it */
        }
    }
}

void sw_keysets__fetcher_wait(struct keysets_fetcher *f, uint64_t wait_ms)
{
    (void)curl_multi_poll(f->multi, NULL, 0, (int)SW_MIN(wait_ms, 60000ull), NULL);
}

void sw_keysets__fetcher_wake(struct keysets_fetcher *f)
{
    (void)curl_multi_wakeup(f->multi);
}
