/* What is refused: where the complaint points, what it says, and that one mistake is one complaint.
 */
#include "world.h"

#define APPS        "apps: { a: { command: [x] }, b: { command: [y] } }\n" /* line 1 */
#define ROUTES      "routes: [ { path: /*, app: a } ]\n"                   /* line 2 */
#define ROUTE(more) APPS "routes: [ { path: /*, app: a, " more " } ]\n"    /* more: 2:31 */
#define APP(more)   ROUTES "apps: { a: { " more " } }\n"                   /* more: 2:14 */
#define TOP(more)   APPS ROUTES more "\n"                                  /* more: line 3 */
#define IA          "issuer: i, audience: [a]"
#define TK(more)    "token: { keys: k, " IA ", " more " }" /* more: 2:TKAT, in ROUTE */
#define TKAT        75
#define TKEYS(keys) "token: { keys: " keys ", " IA " }" /* keys: 2:46 */
#define MINT(more)  "state: token, token: { " IA ", mint: { " more " } }" /* more: 2:MINTAT */
#define MINTAT      88

static const struct row {
    const char *text;
    uint32_t line, column;
    const char *fragment;
    size_t count; /* complaints in all; 0: one */
} rows[] = {
    /* the form of the file */
    {"", 0, 0, "the file is empty", 0},
    {"# nothing\n", 0, 0, "the file is empty", 0},
    {"hello", 1, 1, "must be a map", 0},
    {"[]", 1, 1, "must be a map with `apps` and `routes`, this is a list", 0},
    {"{}", 0, 0, "`apps` is missing; write:", 2},
    {APPS, 0, 0,
     "`routes` is missing; for all requests to go to one app write: routes: [ { path: /*, app: a,",
     0},
    {TOP("---\na: 1"), 3, 1, "a second document", 0},
    {TOP("a: &x 1"), 3, 4, "anchors", 0},
    {TOP("store: *x"), 3, 8, "in quotes", 0},
    {TOP("host: *.x"), 3, 8, "a text that begins with * needs quotes", 0},
    {TOP("a: !!str 1"), 3, 4, "tags", 0},
    {TOP("log:\n\tlevel: info"), 4, 1, "not with tabs", 0},
    {TOP("admin: { token: ${X} }"), 3, 18, "put ${...} in quotes", 0},
    {TOP("a: b: c"), 3, 5, "A text that holds `: ` needs quotes", 0},
    {TOP("a: \"\xff\""), 3, 5, "UTF-8", 0},
    {TOP("a: \"\\0\""), 3, 4, "NUL", 0},
    {TOP("? [a]\n: b"), 3, 3, "a key must be a text", 0},
    {TOP("a: {b: {c: {d: {e: {f: {g: {h: {i: {j: {k: {l: {m: {n: {o: {p: {q: 1}}}}}}}}}}}}}}}}"), 3,
     64, "nested more than 16", 0},
    {TOP("sync: no\nsync: always"), 4, 1, "`sync` is here twice (first in line 3)", 0},
    {"apps:\nroutes:\n", 1, 6, "`apps` needs a map of apps", 2},

    /* unknown keys */
    {TOP("engin: auto"), 3, 1, "unknown key `engin` at the top; did you mean `engine`?", 0},
    {APP("command: [x], replicsa: 3"), 2, 28,
     "unknown key `replicsa` in apps.a; did you mean `replicas`?", 0},
    {APP("command: [x], start_timeout: 3s"), 2, 28, "did you mean `start-timeout`?", 0},
    {APP("command: [x], Replicas: 3"), 2, 28, "did you mean `replicas`?", 0},
    {APP("command: [x], interval: 3s"), 2, 28, "there is one in apps.*.health", 0},
    {APP("command: [x], sync: no"), 2, 28,
     "`sync` belongs to the top of the file and not in apps.a", 0},
    {ROUTE("idle: 3s"), 2, 31, "unknown key `idle` in routes[]; there is one in", 0},
    {TOP("log: { xyzzyx: 1 }"), 3, 8, "known here: level, format, access", 0},
    {TOP("timeouts: { haed: 1s }"), 3, 13, "did you mean `head`?", 0},

    /* not in this version */
    {TOP("listen: [ { address: '127.0.0.1:1', tls: { } } ]"), 3, 37,
     "`tls` is not in this version (0.1)", 0},
    {TOP("listen: [ { tcp: '127.0.0.1:1', app: a } ]"), 3, 13, "`tcp` is not in this version (0.1)",
     3},
    {TOP("listen: [ { address: '127.0.0.1:1', redirect: https } ]"), 3, 37, "not in this version",
     0},
    {TOP("listen: [ { address: '127.0.0.1:1', hsts: 180d } ]"), 3, 37, "not in this version", 0},
    {TOP("listen: [ { address: '127.0.0.1:1', proxy-protocol: off } ]"), 3, 37,
     "not in this version", 0},
    {TOP("store: redis://h:1/0"), 3, 8, "`redis:` is not in this version (0.1); it has lmdb:PATH",
     0},
    {TOP("store: 'journal:'"), 3, 8, "`store` needs lmdb:PATH, journal:PATH", 0},
    {APP("discover: 'dns:x:1'"), 2, 14,
     "`discover` is not in this version (0.1): name the instances in", 2},
    {APP("command: [x], protocol: h2c"), 2, 28, "`protocol` is not in this version", 0},
    {APP("command: [x], tls: {}"), 2, 28, "not in this version", 0},
    {APP("command: [x], handover: /x"), 2, 28, "not in this version", 0},
    {APP("command: [x], limits: { memory: 1MiB }"), 2, 38, "not in this version", 0},
    {APP("command: [x], limits: { requests: 10 }"), 2, 38, "not in this version", 0},
    {APP("command: [x], replicas: { min: 0 }"), 2, 38, "not in this version (0.1); write a number",
     0},
    {ROUTE("realtime: grip"), 2, 31, "not in this version", 0},
    {ROUTE("files: ./x"), 2, 31, "not in this version", 0},
    {ROUTE("state: session, session: { store-down: refuse }"), 2, 58, "not in this version", 0},
    {ROUTE("state: session, session: { key: tls.subject }"), 2, 63,
     "`key: tls.subject` is not in this version", 0},
    {ROUTE("state: sticky, sticky: { by: cookie }"), 2, 56, "not in this version", 0},
    {ROUTE("state: sticky, sticky: { learn: cookie.x }"), 2, 56, "not in this version", 0},

    /* types */
    {APP("command: [x], replicas: many"), 2, 38,
     "`replicas` needs a number, this is a text: `many`", 0},
    {APP("command: [x], replicas: [3]"), 2, 38, "`replicas` needs a number, this is a list", 0},
    {APP("command: [x], replicas: 65"), 2, 38, "`replicas` must be 1 to 64, and this is `65`", 0},
    {APP("command: [x], replicas: 0"), 2, 38, "`replicas` must be 1 to 64", 0},
    {APP("command: [x], replicas:"), 2, 38, "nothing is written here", 0},
    {APP("command: node"), 2, 23, "write: [node, server.js]", 0},
    {APP("command: []"), 2, 23, "`command` needs a program", 0},
    {APP("command: ['']"), 2, 23, "`command` needs a program", 0},
    {APP("command: [x, {port}]"), 2, 27, "put {port} and {socket} in quotes", 0},
    {APP("command: [x], health: /healthz"), 2, 36, "`health` needs a map of keys, this is a text",
     0},
    {TOP("timeouts: { head: 10 }"), 3, 19,
     "`head` needs a duration such as 500ms, 30s, 10m, 2h or 30d, and this is `10`: "
     "the unit is missing",
     0},
    {TOP("timeouts: { head: 2h }"), 3, 19, "`head` must be 100ms to 1h, and this is `2h`", 0},
    {TOP("timeouts: { head: {} }"), 3, 19, "`head` needs a duration, this is a map", 0},
    {TOP("limits: { head: 64k }"), 3, 17,
     "`head` needs a size such as 512, 64KiB or 1MiB, and this is `64k`", 0},
    {TOP("limits: { head: 64KiB, target: 128KiB }"), 3, 32, "`target` is larger than `limits.head`",
     0},
    {TOP("limits: { connections: -1 }"), 3, 24, "needs a number", 0},
    {TOP("limits: { connections: 99999999999 }"), 3, 24, "must be 1 to 1000000", 0},
    {TOP("sync: allways"), 3, 7,
     "`sync` needs one of always, everysec or no, and this is `allways`; did you mean "
     "`always`?",
     0},
    {TOP("log: { level: 3 }"), 3, 15,
     "`level` needs one of error, warn, info or debug, and this is `3`", 0},
    {TOP("log: info"), 3, 6, "`log` needs a map of keys", 0},
    {TOP("log: { access: '' }"), 3, 16, "`access` must not be empty", 0},
    {TOP("workers: 0"), 3, 10, "`workers` needs 1 to 256 or auto", 0},
    {TOP("workers: 1.5"), 3, 10, "`workers` needs 1 to 256 or auto", 0},
    {TOP("store: ./state"), 3, 8,
     "`store` needs lmdb:PATH, journal:PATH or memory:, and this is `./state`; for a folder write "
     "lmdb:",
     0},
    {TOP("store: 'lmdb:'"), 3, 8, "`store` needs lmdb:PATH", 0},
    {TOP("store: 'memory:x'"), 3, 8, "`store` needs lmdb:PATH", 0},
    {TOP("store: 'memory:'\nsync: always"), 4, 7,
     "`sync: always` cannot be had with `store: memory:`", 0},

    /* addresses */
    {TOP("listen: 8080"), 3, 9,
     "`listen` needs a list of maps; write: listen: [ { address: \"8080\" } ]", 0},
    {TOP("listen: []"), 3, 9, "`listen` needs 1 to 16 places", 0},
    {TOP("listen: ['127.0.0.1:1']"), 3, 10, "`listen` needs maps in its list", 0},
    {TOP("listen: [ {} ]"), 3, 11, "`address` is missing in listen[]", 0},
    {TOP("listen: [ { address: 8080 } ]"), 3, 22, "this is a port; write 127.0.0.1:8080", 0},
    {TOP("listen: [ { address: ':8080' } ]"), 3, 22,
     "the host is missing; write 0.0.0.0:8080 for all", 0},
    {TOP("listen: [ { address: example.com } ]"), 3, 22, "has no port", 0},
    {TOP("listen: [ { address: 'example.com:80' } ]"), 3, 22, "needs HOST:PORT with a numeric host",
     0},
    {TOP("listen: [ { address: '1.1.1.1:70000' } ]"), 3, 22, "needs HOST:PORT", 0},
    {TOP("listen:\n- address: 1.1.1.1:1\n- address: 1.1.1.1:1"), 5, 3,
     "`1.1.1.1:1` is in `listen` twice", 0},
    {TOP("listen: [ { address: '127.0.0.1:9000' } ]"), 3, 11, "is the admin listener's address too",
     0},
    {TOP("trusted: 10.0.0.0/8"), 3, 10, "`trusted` needs a list of networks", 0},
    {TOP("trusted: [10.1.0.0/8]"), 3, 11,
     "write 10.0.0.0/8 for the network, or the address without /", 0},
    {TOP("trusted: ['fd00::1/8']"), 3, 11, "write fd00::/8 for the network", 0},
    {TOP("trusted: [10.0.0.0/33]"), 3, 11, "/0 to /32", 0},
    {TOP("trusted: ['fd00::/129']"), 3, 11, "/0 to /128", 0},
    {TOP("trusted: [10.0.0.0/]"), 3, 11, "/0 to /32", 0},
    {TOP("trusted: [/8]"), 3, 11, "needs networks", 0},
    {TOP("trusted: [proxy.example]"), 3, 11, "needs networks such as", 0},
    {TOP("trusted: [10.0.0.0/8, {}]"), 3, 23, "this is a map", 0},
    {TOP("admin: { address: 0.0.0.0:9000 }"), 3, 19, "there is no `admin.token`", 0},
    {TOP("admin: { address: '[::]:9000' }"), 3, 19, "there is no `admin.token`", 0},
    {TOP("admin: { address: 0.0.0.0:9000, token: x }"), 3, 40, "`token` must have 8 bytes at least",
     0},
    {TOP("admin: 127.0.0.1:9000"), 3, 8, "write: admin: { address: \"127.0.0.1:9000\" }", 0},
    {TOP("admin: { token: '' }"), 3, 17, "`token` must have 8 bytes at least", 0},

    /* apps */
    {ROUTES "apps: [ { command: [x] } ]", 2, 7,
     "`apps` needs a map, this is a list; write the name first", 0},
    {ROUTES "apps: {}", 2, 7, "`apps` needs 1 to 64 apps", 0},
    {"routes: [ { path: /*, app: A } ]\napps: { A: { command: [x] } }", 2, 9,
     "the name of an app may have small letters, digits and hyphens: `A`", 0},
    {ROUTES "apps: { a: x }", 2, 12,
     "apps.a needs a map with `command` or `servers`, this is a text", 0},
    {APP(""), 2, 12, "apps.a needs `command: [...]` (stateway runs it) or `servers: [...]`", 0},
    {APP("command: [x], servers: ['1.1.1.1:1']"), 2, 28, "has both `command` and `servers`", 0},
    {APP("servers: ['1.1.1.1:1'], replicas: 3"), 2, 38,
     "`replicas` is for a `command`, and apps.a has `servers`", 0},
    {APP("servers: ['1.1.1.1:1'], directory: ."), 2, 38, "`directory` is for a `command`", 0},
    {APP("servers: ['1.1.1.1:1'], environment: {}"), 2, 38, "`environment` is for a `command`", 0},
    {APP("servers: []"), 2, 23, "`servers` needs 1 to 64 addresses", 0},
    {APP("servers: ['1.1.1.1:1', '1.1.1.1:1']"), 2, 37, "`1.1.1.1:1` is in `servers` twice", 0},
    {APP("servers: [ [1] ]"), 2, 25, "this is a list", 0},
    {APP("servers: [ { weight: 3 } ]"), 2, 25, "`address` is missing in servers[]", 0},
    {APP("servers: [ { address: '1.1.1.1:1', weight: 257 } ]"), 2, 57, "`weight` must be 0 to 256",
     0},
    {APP("servers: [ 'db.internal:80' ]"), 2, 25, "`servers` needs HOST:PORT", 0},
    {APP("command: [x], environment: { 1A: x }"), 2, 43, "the name of a variable", 0},
    {APP("command: [x], environment: { PORT: 80 }"), 2, 43,
     "`PORT` is what stateway tells the command", 0},
    {APP("command: [x], environment: { A: [] }"), 2, 46,
     "`A` in `environment` needs a text, this is a list", 0},
    {APP("command: [x], health: { path: healthz }"), 2, 44, "`path` must begin with /", 0},
    {APP("command: [x], health: { interval: 1s, timeout: 2s }"), 2, 61,
     "`timeout` is longer than `interval`", 0},
    {APP("command: [x], balance: random"), 2, 37,
     "`balance` needs one of least, round-robin or hash", 0},
    {APP("command: [x], retry: { budget: 20 }"), 2, 45, "the percent sign is missing", 0},
    {APP("command: [x], retry: { budget: 101% }"), 2, 45, "`budget` must be 0% to 100%", 0},
    {APP("command: [x], retry: { per-try: 1m }"), 2, 46, "longer than `timeouts.response`", 0},

    /* routes */
    {APPS "routes: { path: /* }", 2, 9, "`routes` needs a list of maps", 0},
    {APPS "routes: []", 2, 9, "`routes` needs 1 to 1024 routes", 0},
    {APPS "routes: [ x ]", 2, 11, "`routes` needs maps in its list", 0},
    {APPS "routes: [ { app: a } ]", 2, 11, "`path` is missing in routes[]", 0},
    {APPS "routes: [ { path: / } ]", 2, 11, "`app` is missing in routes[]", 0},
    {APPS "routes: [ { path: /, app: aa } ]", 2, 27, "there is no app `aa`; did you mean `a`?", 0},
    {APPS "routes: [ { path: /, app: something } ]", 2, 27,
     "there is no app `something`; add it to `apps`", 0},
    {APPS "routes: [ { path: cart, app: a } ]", 2, 19, "`path` must begin with /", 0},
    {APPS "routes: [ { path: '', app: a } ]", 2, 19, "`path` must begin with /", 0},
    {APPS "routes: [ { path: '*', app: a } ]", 2, 19, "`path` must begin with /", 0},
    {APPS "routes: [ { path: /cart*, app: a } ]", 2, 19,
     "has a * inside a segment; it stands alone, at the end", 0},
    {APPS "routes: [ { path: /*/x, app: a } ]", 2, 19,
     "has a * before its end; {name} stands for one segment", 0},
    {APPS "routes: [ { path: /*/, app: a } ]", 2, 19, "has a * before its end", 0},
    {APPS "routes: [ { path: '/a b', app: a } ]", 2, 19, "no blanks", 0},
    {APPS "routes: [ { path: '/a?b', app: a } ]", 2, 19, "no blanks, ? or #", 0},
    {APPS "routes: [ { path: /\xc3\xa4, app: a } ]", 2, 19, "percent-encoded", 0},
    {APPS "routes: [ { path: /a%2, app: a } ]", 2, 19, "two hexadecimal digits", 0},
    {APPS "routes: [ { path: /a/../b, app: a } ]", 2, 19, ". or .. segments", 0},
    {APPS "routes: [ { path: /a/.., app: a } ]", 2, 19, ". or .. segments", 0},
    {APPS "routes: [ { path: '/{a', app: a } ]", 2, 19, "{name} that is no whole segment", 0},
    {APPS "routes: [ { path: '/x{a}', app: a } ]", 2, 19, "{name} that is no whole segment", 0},
    {APPS "routes: [ { path: '/{}', app: a } ]", 2, 19, "{name} that is no whole segment", 0},
    {APPS "routes: [ { path: '/{a.b}', app: a } ]", 2, 19, "is not 1 to 32 letters", 0},
    {APPS "routes: [ { path: '/{a}/{a}', app: a } ]", 2, 19, "has one {name} twice", 0},
    {APPS "routes: [ { path: '/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}', app: a } ]", 2, 19,
     "more than 8", 0},
    {APPS "routes: [ { path: "
          "/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/"
          "a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b/a/b, app: a } ]",
     2, 19, "more than 64 segments", 0},
    {ROUTE("host: 'shop.example:80'"), 2, 37, "`host` is written without port", 0},
    {ROUTE("host: 'a.*.b'"), 2, 37, "may have one *, as its whole first label", 0},
    {ROUTE("host: '*'"), 2, 37, "may have one *", 0},
    {ROUTE("host: '*.'"), 2, 37, "host", 0},
    {ROUTE("host: 'a..b'"), 2, 37, "labels of letters", 0},
    {ROUTE("host: ''"), 2, 37, "labels of letters", 0},
    {ROUTE("host: 'a b'"), 2, 37, "labels of letters", 0},
    {ROUTE("host: '[1::g]'"), 2, 37, "no IPv6 address", 0},
    {ROUTE("host: 'http://x'"), 2, 37, "without port", 0},
    {ROUTE("methods: GET"), 2, 40, "`methods` needs a list of methods", 0},
    {ROUTE("methods: []"), 2, 40, "without the key all are taken", 0},
    {ROUTE("methods: [get]"), 2, 41, "`get` is no method there is: they are written in capitals",
     0},
    {ROUTE("methods: [GET, GET]"), 2, 46, "`GET` is here twice", 0},
    {ROUTE("methods: [CONNECT]"), 2, 41, "is not served", 0},
    {ROUTE("methods: ['G T']"), 2, 41, "is no method", 0},
    {ROUTE("headers: { 'a b': 1 }"), 2, 42, "is no name of a header", 0},
    {ROUTE("headers: { a: 1, A: 1 }"), 2, 48, "is here twice (capitals do not matter)", 0},
    {ROUTE("headers: { Host: x }"), 2, 42, "`host` of the route", 0},
    {ROUTE("headers: { Stateway-State: x }"), 2, 42, "taken out of what clients send", 0},
    {ROUTE("headers: { a: \"x\\ny\" }"), 2, 45, "control character", 0},
    {ROUTE("strip: /x"), 2, 38, "`strip: /x` is no beginning of the route's path", 0},
    {APPS "routes: [ { path: /cart/*, app: a, strip: /car } ]", 2, 43, "is no beginning", 0},
    {APPS "routes: [ { path: '/{x}/*', app: a, strip: /x } ]", 2, 44, "is no beginning", 0},
    {APPS "routes: [ { path: /cart/*, app: a, strip: /cart/ } ]", 2, 43, "not end with /", 0},
    {APPS "routes: [ { path: /cart/*, app: a, strip: / } ]", 2, 43, "must name a segment", 0},
    {ROUTE("csrf: yes"), 2, 37, "`csrf` needs on or off, and this is `yes`", 0},
    {ROUTE("expose: [x]"), 2, 40, "`expose` needs verdict or instance", 0},
    {ROUTE("replay: always"), 2, 39, "`replay` needs one of idempotent, safe or never", 0},
    {ROUTE("session: {}"), 2, 31, "`session` says nothing without `state: session`", 0},
    {ROUTE("state: session, sticky: {}"), 2, 47, "`sticky` says nothing without `state: sticky`",
     0},

    /* states */
    {ROUTE("state: session, session: { key: path.room }"), 2, 63,
     "names no {room} of the route's path `/*`", 0},
    {ROUTE("state: session, session: { key: path. }"), 2, 63, "needs a name behind path.", 0},
    {ROUTE("state: session, session: { key: ip }"), 2, 63, "`key` needs cookie, path.NAME", 0},
    {ROUTE("state: session, session: { key: header.X, cookie: { name: x } }"), 2, 73,
     "`cookie` is not used with `key: header.X`", 0},
    {ROUTE("state: session, session: { idle: 2d, absolute: 1d }"), 2, 64,
     "`idle` is longer than `absolute`", 0},
    {ROUTE("state: session, session: { idle: 60d }"), 2, 64,
     "`idle` is longer than `absolute` (its default)", 0},
    {ROUTE("state: session, session: { idle: 1500ms }"), 2, 64, "`idle` needs whole seconds", 0},
    {ROUTE("state: session, session: { idle: 500ms }"), 2, 64, "`idle` needs whole seconds", 0},
    {ROUTE("state: session, session: { idle: 0s }"), 2, 64, "`idle` must be 1s to", 0},
    {ROUTE("state: session, session: { max-size: 63 }"), 2, 68, "`max-size` must be 64B to 64MiB",
     0},
    {ROUTE("state: session, session: { max-size: 65MiB }"), 2, 68,
     "`max-size` must be 64B to 64MiB, and this is `65MiB`", 0},
    {ROUTE("state: session, session: { inline: 8KiB, max-size: 4KiB }"), 2, 82,
     "`max-size` is below `inline` (8KiB)", 0},
    {ROUTE("state: session, session: { max-size: 17MiB }"), 2, 68,
     "`max-size` is more than a quarter of `limits.large` (64MiB)", 0},
    {ROUTE("state: session, session: { max-size: 2MiB }") "limits: { large: 4MiB }", 2, 68,
     "more than a quarter of `limits.large` (4MiB)", 0},
    {ROUTE("state: session, session: { max-size: 1MiB }") "side: { address: off }", 2, 68,
     "`max-size` is above `inline` (4KiB), and `side: { address: off }` leaves no way", 0},
    {ROUTE("state: session, session: { inline: 1KiB, max-size: 1025 }") "side: { address: off }", 2,
     82, "`max-size` is above `inline` (1KiB)", 0},
    /* one mistake is one complaint */
    {ROUTE("state: session, session: { max-size: 1MiB }") "side: { address: x }", 3, 18,
     "has no port", 0},
    {ROUTE("state: session, session: { max-size: 2MiB }") "limits: { large: 4 MB }", 3, 18,
     "`large` needs a size", 0},
    {ROUTE("state: session, session: { encrypt: yes }"), 2, 67,
     "`encrypt` needs on or off, and this is `yes`", 0},
    {ROUTE("state: session, session: { encrypt: on, key: header.X }"), 2, 58,
     "`encrypt: on` needs `key: cookie`", 0},
    {ROUTE("state: session, session: { encrypt: on, alarm: /alarms }"), 2, 71,
     "`alarm` does not go with `encrypt: on`", 0},
    {ROUTE("state: session, session: { alarm: alarms }"), 2, 65, "`alarm` must begin with /", 0},
    {ROUTE("state: session, session: { alarm: '' }"), 2, 65, "`alarm` must", 0},
    {ROUTE("state: session, session: { owner: me, key: header.X }"), 2, 65,
     "`owner` needs one of any or subject, and this is `me`", 0},
    {ROUTE("state: session, session: { owner: subject }"), 2, 58,
     "`owner: subject` is for entities", 0},
    {APPS "routes:\n- { path: /a/*, app: a, state: session }\n"
          "- { path: /b/*, app: a, state: session, session: { encrypt: on } }\n",
     4, 61, "`encrypt` is on here and off in line 3, and both routes have one state", 0},
    {APPS "routes:\n- { path: /a/*, app: a, state: session, session: { encrypt: on } }\n"
          "- { path: /b/*, app: a, state: session }\n",
     4, 3, "`encrypt` is off here and on in line 3", 0},
    {APPS "routes:\n- { path: /a/*, app: a, state: session }\n"
          "- { path: /b/*, app: b, state: session, session: { key: header.X, owner: subject } }\n",
     4, 3, "two apps with one cookie name", 0},
    {ROUTE("state: session, session: { inline: 17KiB }"), 2, 66, "`inline` must be 64B to 16KiB",
     0},
    {ROUTE("state: session, session: { queue: { wait: 6m } }"), 2, 73,
     "`wait` is longer than `timeouts.exchange`", 0},
    {ROUTE("state: session, session: { cookie: { same-site: none } }"), 2, 79, "add `secure: yes`",
     0},
    {ROUTE("state: session, session: { cookie: { name: 'a b' } }"), 2, 74, "a token", 0},
    {ROUTE("state: session, session: { cookie: { name: __Host-x } }"), 2, 74,
     "gets its __Host- from stateway", 0},
    {ROUTE("state: session, session: { cookie: { path: /x } }"), 2, 74,
     "a browser would not send a cookie", 0},
    {ROUTE("state: session, session: { cookie: { path: /x/ } }"), 2, 74, "must not end with /", 0},
    {APPS "routes:\n- { path: /a/*, app: a, state: session }\n- { path: /b/*, app: b, state: "
          "session }\n",
     4, 3, "two apps with one cookie name: `sid` is also that of app a (line 3)", 0},
    {APPS "routes:\n- { path: /a/*, app: a, state: sticky, sticky: { cookie: { name: x } } }\n"
          "- { path: /b/*, app: b, state: session, session: { cookie: { name: x } } }\n",
     4, 68, "two apps with one cookie name", 0},
    {APPS "routes:\n- { path: /a/*, app: a, state: sticky, sticky: { cookie: { name: x } } }\n"
          "- { path: /b/*, app: a, state: session, session: { cookie: { name: x } } }\n",
     4, 68, "one cookie name for two things", 0},
    {APPS "routes:\n- { path: /a/*, app: a, state: session, session: { cookie: { path: /a } } }\n"
          "- { path: /b/*, app: a, state: session }\n",
     4, 3, "a browser would keep two", 0},
    {APPS "routes:\n- { path: /a/*, host: '*.x.y', app: a, state: session }\n"
          "- { path: /b/*, host: z.x.y, app: b, state: session }\n",
     4, 3, "two apps with one cookie name", 0},

    /* idempotency */
    {ROUTE("idempotency: on"), 2, 44,
     "`idempotency` needs one of off, optional or required, and this is `on`", 0},
    {ROUTE("idempotency: [required]"), 2, 44, "`idempotency` needs", 0},
    {ROUTE("idempotency:"), 2, 44, "nothing is written here", 0},
    {ROUTE("idempotency: { mode: on }"), 2, 52, "`mode` needs one of off, optional or required", 0},
    {ROUTE("idempotency: { retain: 1h }"), 2, 46,
     "unknown key `retain` in routes[].idempotency; known here: ", 0},
    {ROUTE("idempotency: { retention: 0s }"), 2, 57, "`retention` must be 1s to", 0},
    {ROUTE("idempotency: { retention: 1500ms }"), 2, 57, "`retention` needs whole seconds", 0},
    {ROUTE("idempotency: { unknown: ask }"), 2, 55, "`unknown` needs one of reject or retry", 0},
    {ROUTE("idempotency: { failed: ignore }"), 2, 54,
     "`failed` needs one of unknown, store or release", 0},
    {ROUTE("idempotency: { wait: 2h }"), 2, 52, "`wait` must be 0", 0},
    {ROUTE("idempotency: { wait: 6m }"), 2, 52, "`wait` is longer than `timeouts.exchange`", 0},
    {ROUTE("idempotency: { max-answer: 17MiB }"), 2, 58, "`max-answer` must be 0 to 16MiB", 0},
    {ROUTE("idempotency: { max-answer: 2MiB }") "limits: { large: 4MiB }", 2, 58,
     "`max-answer` is more than a quarter of `limits.large` (4MiB)", 0},
    {ROUTE("idempotency: { max-answer: 2MiB }") "limits: { large: 4 }", 3, 18, "`large` must be",
     0},
    {ROUTE("idempotency: { principal: user }"), 2, 57,
     "`principal` needs visitor, claim.sub, header.NAME or address, and this is `user`", 0},
    {ROUTE("idempotency: { principal: claim.name }"), 2, 57, "`principal` needs visitor", 0},
    {ROUTE("idempotency: { principal: claim.sub }"), 2, 46,
     "`principal: claim.sub` needs a `token` section", 0},
    {ROUTE("idempotency: { principal: header. }"), 2, 57, "`principal` needs visitor", 0},
    {ROUTE("idempotency: { principal: 'header.a b' }"), 2, 57, "`principal` needs visitor", 0},
    {ROUTE("idempotency: { principal: [address] }"), 2, 57, "this is a list", 0},
    {ROUTE("idempotency: { principal: visitor }"), 2, 46,
     "`principal: visitor` needs `state: session` with `key: cookie`", 0},
    {ROUTE("state: session, session: { key: header.X }, idempotency: { principal: visitor }"), 2,
     90, "`principal: visitor` needs", 0},

    /* keys */
    {TOP("keys: { rotate: 1500ms }"), 3, 17, "`rotate` needs whole seconds", 0},
    {TOP("keys: { rotate: never }"), 3, 17, "`rotate` needs a duration", 0},
    {TOP("keys: { rotate: 3651d }"), 3, 17, "`rotate` must be 0ms to 3650d", 0},

    /* tokens */
    {ROUTE("state: token"), 2, 38, "`state: token` needs a `token` section; write token: {", 0},
    {ROUTE("token: on"), 2, 38, "`token` needs a map of keys", 0},
    {ROUTE("token: { issuer: i, audience: [a] }"), 2, 31, "`token` needs `keys`", 0},
    {ROUTE("token: {}"), 2, 31, "`token` needs `keys`", 3},
    {ROUTE("token: { keys: k.json, audience: [a] }"), 2, 31,
     "`issuer` is missing in token: who made a token would not be looked at", 0},
    {ROUTE("token: { keys: k.json, issuer: i }"), 2, 31,
     "`audience` is missing in token: a token that was made for another service", 0},
    {ROUTE("state: token, token: { keys: k.json, mint: {}, " IA " }"), 2, 68,
     "`keys` and `mint` are two things", 0},
    {ROUTE("token: { mint: {}, " IA " }"), 2, 40, "it needs `state: token`", 0},
    {ROUTE("state: session, token: { mint: {}, " IA " }"), 2, 56, "it needs `state: token`", 0},
    {ROUTE("token: { keys: k.json, issuer: '', audience: [a] }"), 2, 62, "must not be empty", 0},
    {ROUTE("token: { keys: k.json, issuer: 'a b', audience: [a] }"), 2, 62, "without blanks", 0},
    {ROUTE("token: { keys: k.json, issuer: 'a\"b', audience: [a] }"), 2, 62, "without blanks", 0},
    {ROUTE("token: { keys: k.json, issuer: i, audience: a }"), 2, 75,
     "`audience` needs a list; write: [a]", 0},
    {ROUTE("token: { keys: k.json, issuer: i, audience: [] }"), 2, 75,
     "`audience` needs 1 to 16 texts", 0},
    {ROUTE("token: { keys: k.json, issuer: i, audience: [a, b, a] }"), 2, 82,
     "`a` is here twice; take one out", 0},
    {ROUTE("token: { keys: k.json, issuer: i, audience: [{}] }"), 2, 76, "this is a map", 0},
    {ROUTE(TK("type: 'a b'")), 2, TKAT + 6, "media type such as at+jwt", 0},
    {ROUTE(TK("from: header")), 2, TKAT + 6, "`from` needs bearer or cookie.NAME", 0},
    {ROUTE(TK("from: cookie.")), 2, TKAT + 6, "the name behind cookie. must be", 0},
    {ROUTE(TK("from: cookie.__Host-x")), 2, TKAT + 6, "gets its __Host- from stateway", 0},
    {ROUTE(TK("cookie: { path: / }")), 2, TKAT, "`cookie` says nothing without `from: cookie.", 0},
    {ROUTE(TK("from: cookie.t, cookie: { path: /x }")), 2, TKAT + 32,
     "a browser would not send a cookie", 0},
    {ROUTE(TK("from: cookie.t, cookie: { same-site: none }")), 2, TKAT + 37, "add `secure: yes`",
     0},
    {ROUTE(TK("from: cookie.t, cookie: { name: x }")), 2, TKAT + 26, "unknown key `name`", 0},
    {ROUTE(TK("skew: 6m")), 2, TKAT + 6, "`skew` must be 0ms to 5m", 0},
    {ROUTE(TK("max-age: 0s")), 2, TKAT + 9, "`max-age` must be 1s to", 0},
    {ROUTE(TK("required: maybe")), 2, TKAT + 10, "`required` needs on or off", 0},
    {ROUTE(TK("require: { scope: [a, a] }")), 2, TKAT + 22, "`a` is here twice", 0},
    {ROUTE(TK("require: { scope: a }")), 2, TKAT + 18, "write: [a]", 0},
    {ROUTE(TK("require: { scope: ['a b'] }")), 2, TKAT + 19, "must be one word", 0},
    {ROUTE(TK("require: { scope: [''] }")), 2, TKAT + 19, "1 to 256 characters", 0},
    {ROUTE(TK("require: { claims: { a: 1, a: 2 } }")), 2, TKAT + 27, "`a` is here twice", 0},
    {ROUTE(TK("require: { claims: { iss: x } }")), 2, TKAT + 21, "a key of its own: `issuer`", 0},
    {ROUTE(TK("require: { claims: { scope: x } }")), 2, TKAT + 21, "require: { scope", 0},
    {ROUTE(TK("require: { claims: { exp: 1 } }")), 2, TKAT + 21, "is a time", 0},
    {ROUTE(TK("require: { claims: { a: [b] } }")), 2, TKAT + 24, "needs a text, this is a list", 0},
    {ROUTE(TK("require: { claims: { a: } }")), 2, TKAT + 24, "needs a text", 0},
    {ROUTE(TK("headers: { Cookie: sub }")), 2, TKAT + 11, "is the client's own", 0},
    {ROUTE(TK("headers: { authorization: sub }")), 2, TKAT + 11, "is the client's own", 0},
    {ROUTE(TK("headers: { Stateway_User: sub }")), 2, TKAT + 11, "is stateway's own", 0},
    {ROUTE(TK("headers: { Host: sub }")), 2, TKAT + 11, "where a request goes to", 0},
    {ROUTE(TK("headers: { content_length: sub }")), 2, TKAT + 11, "what the body is", 0},
    {ROUTE(TK("headers: { Transfer-Encoding: sub }")), 2, TKAT + 11, "what the body is", 0},
    {ROUTE(TK("headers: { Connection: sub }")), 2, TKAT + 11, "two neighbours only", 0},
    {ROUTE(TK("headers: { TE: sub }")), 2, TKAT + 11, "two neighbours only", 0},
    {ROUTE(TK("headers: { X-Forwarded-User: sub }")), 2, TKAT + 11, "came from", 0},
    {ROUTE(TK("headers: { X-User: sub, x_user: sub }")), 2, TKAT + 24, "is here twice (capitals",
     0},
    {ROUTE(TK("headers: { 'X User': sub }")), 2, TKAT + 11, "is no name of a header", 0},
    {ROUTE(TK("headers: { X-User: '' }")), 2, TKAT + 19, "is no name of a claim", 0},

    /* where keys come from */
    {ROUTE(TKEYS("'http://id.example/jwks'")), 2, 46, "is not encrypted", 0},
    {ROUTE(TKEYS("'http://127.0.0.1.example/jwks'")), 2, 46, "is not encrypted", 0},
    {ROUTE(TKEYS("'http://localhost.example/jwks'")), 2, 46, "is not encrypted", 0},
    {ROUTE(TKEYS("'http://128.0.0.1/jwks'")), 2, 46, "is not encrypted", 0},
    {ROUTE(TKEYS("'http://[::2]/jwks'")), 2, 46, "is not encrypted", 0},
    {ROUTE(TKEYS("'https://user:pw@id.example/jwks'")), 2, 46, "has a user or a password", 0},
    {ROUTE(TKEYS("'http://127.0.0.1@evil.example/'")), 2, 46, "has a user or a password", 0},
    {ROUTE(TKEYS("'https://id.example/jwks#a'")), 2, 46, "has a #", 0},
    {ROUTE(TKEYS("'https:///jwks'")), 2, 46, "names no host", 0},
    {ROUTE(TKEYS("'https://a_b/jwks'")), 2, 46, "names no host", 0},
    {ROUTE(TKEYS("'https://a:0/jwks'")), 2, 46, "no number of a port", 0},
    {ROUTE(TKEYS("'https://a:/jwks'")), 2, 46, "no number of a port", 0},
    {ROUTE(TKEYS("'https://a:65536/jwks'")), 2, 46, "no number of a port", 0},
    {ROUTE(TKEYS("'https://a/b c'")), 2, 46, "visible ASCII", 0},
    {ROUTE(TKEYS("'https://a\\b/'")), 2, 46, "visible ASCII", 0},
    {ROUTE(TKEYS("'ftp://a/b'")), 2, 46, "must be a path or an https:// URL", 0},
    {ROUTE(TKEYS("'HTTP://a/b'")), 2, 46, "must be a path or an https:// URL", 0},
    {ROUTE(TKEYS("''")), 2, 46, "`keys` must not be empty", 0},
    {ROUTE(TKEYS("[a]")), 2, 46, "this is a list", 0},

    /* minted tokens */
    {ROUTE(MINT("life: 25h")), 2, MINTAT + 6, "`life` must be 2s to 1d", 0},
    {ROUTE(MINT("life: 2m, renew: 2m")), 2, MINTAT + 17, "`renew` must be shorter than `life` (2m)",
     0},
    {ROUTE(MINT("life: 2h, absolute: 1h")), 2, MINTAT + 6, "`life` is longer than `absolute`", 0},
    {ROUTE(MINT("algorithm: none")), 2, MINTAT + 11, "one of ed25519, es256 or hs256", 0},
    {ROUTE(MINT("deliver: cookie")), 2, MINTAT + 9, "`deliver: cookie` needs `from: cookie.NAME`",
     0},
    {ROUTE("state: token, token: { " IA ", from: cookie.t, mint: { deliver: header } }"), 2, 113,
     "`deliver: header` goes with `from: bearer`", 0},

    /* sealed states */
    {ROUTE("sealed: {}"), 2, 31, "`sealed` says nothing without `state: sealed`", 0},
    {ROUTE("state: sealed, sealed: { idle: 91d }"), 2, 62, "`idle` is longer than `absolute` (its",
     0},
    {ROUTE("state: sealed, sealed: { absolute: 401d }"), 2, 66, "must be 1s to 400d", 0},
    {ROUTE("state: sealed, sealed: { oversize: grow }"), 2, 66, "one of refuse or spill", 0},
    {ROUTE("state: sealed, sealed: { replay-guard: yes }"), 2, 70, "needs on or off", 0},
    {ROUTE("state: sealed, sealed: { cookie: { path: /x } }"), 2, 72,
     "a browser would not send a cookie", 0},
    {ROUTE("state: sealed, session: {}"), 2, 46, "`session` says nothing", 0},
    {ROUTE("state: sealed, sealed: { oversize: spill }, session: { key: header.X }"), 2, 91,
     "`oversize: spill` needs `key: cookie`", 0},
    {ROUTE("state: sealed, sealed: { oversize: spill, cookie: { name: sid } }"), 2, 89,
     "`sid` is that of `session` and of `sealed`", 0},
    {APPS "routes:\n- { path: /a/*, app: a, state: sealed, sealed: { cookie: { name: x } } }\n"
          "- { path: /b/*, app: b, state: sealed, sealed: { cookie: { name: x } } }\n",
     4, 66, "write sealed: { cookie: { name: b-id } }", 0},
    {APPS "routes:\n- { path: /a/*, app: a, state: sealed, sealed: { cookie: { name: sid } } }\n"
          "- { path: /b/*, app: a, state: session }\n",
     4, 3, "one cookie name for two things", 0},
    {APPS "routes:\n- { path: /a/*, app: a, state: token, token: { from: cookie.t, " IA
          ", mint: {} } }\n- { path: /b/*, app: b, state: token, token: { from: cookie.t, " IA
          ", mint: {} } }\n",
     4, 54, "write token: { from: cookie.b-id }", 0},

    /* moved */
    {ROUTE("state: sealed, moved-from: sealed"), 2, 58, "names where the state is now", 0},
    {ROUTE("moved-from: sealed"), 2, 43, "needs `state` session, token or sealed", 0},
    {ROUTE("state: sticky, moved-from: session"), 2, 58, "needs `state` session", 0},
    {ROUTE("state: session, moved-from: none"), 2, 59, "one of session, token or sealed", 0},
    {ROUTE("state: session, moved-from: token"), 2, 59, "needs the `token` section", 0},
    {ROUTE("state: session, session: { key: header.X }, moved-from: sealed"), 2, 87,
     "`moved-from` needs `key: cookie`", 0},
    {ROUTE("state: sealed, session: { key: header.X }, moved-from: session"), 2, 86,
     "`moved-from` needs `key: cookie`", 0},
    {ROUTE("state: session, moved-from: sealed, sealed: { cookie: { name: sid } }"), 2, 93,
     "`sid` is that of `session` and of `sealed`", 0},

    /* claims as keys, phantom tokens */
    {ROUTE("state: session, session: { key: claim.sub }"), 2, 63,
     "`key: claim.sub` needs a `token` section", 0},
    {ROUTE("state: session, session: { key: claim. }"), 2, 63, "needs a name behind claim.", 0},
    {ROUTE("state: session, session: { phantom: { audience: a } }"), 2, 58,
     "`issuer` is missing in phantom", 0},
    {ROUTE("state: session, session: { phantom: { issuer: a } }"), 2, 58,
     "`audience` is missing in phantom", 0},
    {ROUTE("state: session, session: { phantom: { issuer: a, audience: b, life: 25h } }"), 2, 99,
     "`life` must be 1s to 1d", 0},
    {ROUTE("state: sealed, moved-from: session, session: { phantom: { issuer: a, audience: b } }"),
     2, 78, "`phantom` needs `state: session`", 0},

    /* the side API */
    {TOP("side: 127.0.0.1:7000"), 3, 7, "`side` needs a map of keys", 0},
    {TOP("side: { address: 'unix:/run/side.sock' }"), 3, 18, "apps reach it by a URL", 0},
    {TOP("side: { address: example.com:80 }"), 3, 18, "HOST:PORT with a numeric host", 0},
    {TOP("side: { address: 7000 }"), 3, 18, "this is a port; write 127.0.0.1:7000", 0},
    {TOP("side: { address: [] }"), 3, 18, "this is a list", 0},
    {TOP("side: { address: 0.0.0.0:7000 }"), 3, 18,
     "`address` of `side` is told to the apps, and `0.0.0.0:7000` names no machine", 0},
    {TOP("side: { address: '[::]:7000' }"), 3, 18, "names no machine", 0},
    {TOP("side: { address: 127.0.0.1:9000 }"), 3, 18, "this is the admin listener's address too",
     0},
    {TOP("side: { address: 127.0.0.1:8080 }"), 0, 0, "is the side API's address too", 0},
    {TOP("listen: [ { address: '127.0.0.1:1' } ]\nside: { address: '127.0.0.1:1' }"), 3, 11,
     "is the side API's address too; they need one each", 0},
    {TOP("side: { port: 7000 }"), 3, 9, "unknown key `port`", 0},
    {TOP("limits: { large: 1023KiB }"), 3, 18, "`large` must be 1MiB to", 0},

    /* substitution */
    {APP("command: ['${NOPE}']"), 2, 24,
     "the environment has no variable `NOPE`; set it, or write $${NOPE}", 0},
    {APP("command: ['$HOME']"), 2, 24, "a single $ in `$HOME`", 0},
    {APP("command: ['x$']"), 2, 24, "a single $", 0},
    {APP("command: ['${N']"), 2, 24, "`${` without `}`", 0},
    {APP("command: ['${}']"), 2, 24, "is no name of a variable", 0},
    {APP("command: ['${N:-x}']"), 2, 24, "is no name of a variable", 0},
    {APP("command: ['${1N}']"), 2, 24, "is no name of a variable", 0},
    {APP("command: ['${file:nope.txt}']"), 2, 24, "`${file:nope.txt}`: there is no such file", 0},
    {APP("command: ['${file:large.txt}']"), 2, 24, "larger than 64 KiB", 0},
    {APP("command: ['${file:nul.txt}']"), 2, 24, "NUL byte", 0},
    {APP("command: ['${file:}']"), 2, 24, "needs a path", 0},
    {APP("command: [x], replicas: '${NOPE}'"), 2, 38, "no variable `NOPE`", 0},
};

static void error_rows(void **state)
{
    unsigned failed = 0;

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_config_errors e;
        struct sw_config *c = NULL;
        enum sw_err err = parse(sw_slice_cstr(rows[i].text), NULL, &c, &e);
        size_t expected = rows[i].count > 0 ? rows[i].count : 1;
        bool found = false;

        for (size_t k = 0; k < e.count && k < SW_CONFIG_ERRORS_MAX; k++) {
            found =
                found || (e.list[k].line == rows[i].line && e.list[k].column == rows[i].column &&
                          sw_slice_find_slice(e.list[k].text, sw_slice_cstr(rows[i].fragment)) <
                              e.list[k].text.len);
        }
        if (err != SW_E_SYNTAX || c != NULL || !found || e.count != expected) {
            print_message("row %zu, wanted %u:%u %s\nin %s\n", i, rows[i].line, rows[i].column,
                          rows[i].fragment, rows[i].text);
            print_errors(&e);
            failed++;
        }
        sw_config_errors_fini(&e);
        sw_config_free(c);
    }
    assert_int_equal(failed, 0);
}

/* Things near an error that are none. */
static const char *const fine[] = {
    TOP("listen: [ { address: '127.0.0.1:1' }, { address: '127.0.0.1:2' } ]"),
    TOP("admin: { address: 'unix:/run/x.sock' }"),
    TOP("admin: { address: 127.1.2.3:9000 }"),
    TOP("admin: { address: '[::1]:9000' }"),
    TOP("admin: { address: 0.0.0.0:9000, token: '${ADMIN_TOKEN}' }"),
    TOP("admin: off\nlisten: [ { address: '127.0.0.1:9000' } ]"),
    TOP("trusted: []"),
    TOP("store: 'memory:'\nsync: no"),
    TOP("timeouts: { exchange: 10s }"),
    TOP("timeouts: {}"),
    ROUTE("headers: {}"),
    ROUTE("host: localhost"),
    ROUTE("host: '[::1]'"),
    ROUTE("host: 127.0.0.1"),
    ROUTE("state: sticky, sticky: {}"),
    ROUTE("state: session, session: { absolute: 1m }"),
    ROUTE("state: session, session: { cookie: { same-site: none, secure: yes } }"),
    APPS "routes: [ { path: /a%20b, app: a } ]",
    APPS "routes: [ { path: /, app: a } ]",
    APPS "routes: [ { path: '/{a}/x/{b}', app: a, state: session, session: { key: path.b } } ]",
    APPS "routes: [ { path: '/a/{b}/*', app: a, strip: /a } ]",
    APPS "routes: [ { path: /a, app: a, strip: /a } ]",
    /* Two apps and one cookie name, but no browser sends it to both. */
    APPS "routes:\n- { path: /a/*, host: x.y, app: a, state: session }\n"
         "- { path: /b/*, host: z.y, app: b, state: session }\n",
    APPS "routes:\n- { path: /a/*, app: a, state: session, session: { cookie: { path: /a } } }\n"
         "- { path: /ab/*, app: b, state: session, session: { cookie: { path: /ab } } }\n",
    APPS
    "routes:\n- { path: /a/*, app: a, state: session }\n- { path: /b/*, app: a, state: session }\n",
    APPS
    "routes:\n- { path: /a/*, app: a, state: sticky }\n- { path: /b/*, app: b, state: sticky }\n",
    APPS "routes:\n- { path: /*, host: '*.y', app: a, state: session }\n"
         "- { path: /*, host: y, app: b, state: session }\n",
    APP("command: [sh, -c, 'exec server --port $$PORT']"),
    ROUTE("state: session, session: { max-size: 16MiB }"),
    ROUTE("state: session, session: { inline: 4KiB, max-size: 4KiB }") "side: { address: off }",
    ROUTE("state: session, session: { max-size: 64MiB }") "limits: { large: 256MiB }",
    ROUTE("state: session, session: { encrypt: on }"),
    ROUTE("state: session, session: { encrypt: off, alarm: /a }"),
    ROUTE("state: session, session: { key: header.X, owner: subject, cookie: { name: x } }"),
    ROUTE("state: session, session: { key: header.X, owner: any, encrypt: off }"),
    TOP("keys: { rotate: off }"),
    TOP("keys: { rotate: 0s }"),
    TOP("keys: { rotate: 1s }"),
    ROUTE(TK("skew: 0s, max-age: 1s, required: off, type: application/at+jwt")),
    ROUTE("state: session, " TK("from: cookie.t") ", session: { key: claim.sub }"),
    ROUTE("state: sticky, " TK("headers: { X-User: sub }")),
    ROUTE("state: sealed, " TK("require: { scope: [], claims: { 'https://x/t': 'true' } }")),
    ROUTE(TKEYS("'https://id.example'")),
    ROUTE(TKEYS("'https://id.example:8443?x=y'")),
    ROUTE(TKEYS("'https://[fd00::1]:8443/jwks'")),
    ROUTE(TKEYS("'http://127.9.9.9:80/jwks'")),
    ROUTE(TKEYS("'http://[::1]/jwks'")),
    ROUTE(TKEYS("'http://LOCALHOST/jwks'")),
    ROUTE(TKEYS("./with spaces/jwks.json")),
    ROUTE("state: token, token: { keys: k, " IA " }"),
    ROUTE(MINT("deliver: header")),
    ROUTE(MINT("life: 24h, renew: 23h")),
    ROUTE(MINT("life: 1m")),     /* renew gives way */
    ROUTE(MINT("absolute: 2s")), /* life and renew do */
    ROUTE("state: token, token: { from: cookie.t, " IA ", mint: { deliver: cookie } }"),
    ROUTE("state: sealed"),
    ROUTE("state: sealed, sealed: { absolute: 400d, idle: 400d }"),
    ROUTE("state: sealed, sealed: { absolute: 1m }"),
    ROUTE("state: sealed, sealed: { oversize: spill }, session: { absolute: 1d }"),
    ROUTE("state: sealed, moved-from: session, session: { cookie: { name: old } }"),
    ROUTE("state: session, moved-from: sealed"),
    ROUTE("state: session, moved-from: token, token: { from: cookie.t, " IA ", mint: {} }"),
    ROUTE("state: token, moved-from: session, token: { " IA ", mint: {} }"),
    ROUTE("state: session, session: { phantom: { issuer: a, audience: b, algorithm: es256 } }"),
    /* One place that makes states, another that still reads them. */
    APPS "routes:\n- { path: /a/*, app: a, state: session }\n"
         "- { path: /b/*, app: a, state: sealed, moved-from: session }\n",
    /* Another's token, in one cookie for two apps. */
    APPS "routes:\n- { path: /a/*, app: a, " TK("from: cookie.t") " }\n"
         "- { path: /b/*, app: b, " TK("from: cookie.t, cookie: { path: /b }") " }\n",
    ROUTE("idempotency: off"),
    ROUTE("idempotency: { mode: off, principal: visitor }"),
    ROUTE("idempotency: { principal: address, wait: 0s, max-answer: 0 }"),
    ROUTE("state: session, idempotency: { principal: visitor, wait: 5m, max-answer: 16MiB }"),
    ROUTE("state: sticky, idempotency: required"),
    APPS "routes:\n- { path: /a/*, app: a, state: session }\n"
         "- { path: /b/*, app: a, state: session, session: { key: header.X, owner: subject } }\n",
    APPS "routes:\n- { path: /a/*, app: a, state: session, session: { encrypt: on } }\n"
         "- { path: /b/*, app: a, state: session, session: { cookie: { name: b } } }\n",
    TOP("side: { address: off }\nlimits: { large: 1MiB }"),
    TOP("side: { address: '[::1]:7000' }"),
    TOP("side: { address: 10.1.2.3:0 }"),
    TOP("side: {}"),
    APP("command: [x], drain: { deadline: 0s }, retry: { attempts: 0 }, limits: { pending: 0 }"),
    "%YAML 1.1\n---\n" APPS ROUTES "...\n",
};

static void accepted(void **state)
{
    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(fine); i++) {
        struct sw_config_errors e;
        struct sw_config *c = NULL;

        if (parse(sw_slice_cstr(fine[i]), NULL, &c, &e) != SW_OK) {
            print_errors(&e);
            fail_msg("%s", fine[i]);
        }
        sw_config_errors_fini(&e);
        sw_config_free(c);
    }
}

/* A file full of mistakes: all are told, in the order of the file. */
static void all_at_once(void **state)
{
    const char *text = "engin: auto\n"
                       "sync: maybe\n"
                       "apps:\n"
                       "  shop: { command: node, replicsa: 3 }\n"
                       "routes:\n"
                       "  - { path: cart, app: shpo, state: stiky }\n";
    static const uint32_t lines[] = {1, 2, 4, 4, 6, 6, 6};
    struct sw_config_errors e;
    struct sw_config *c = NULL;

    (void)state;
    assert_int_equal(parse(sw_slice_cstr(text), NULL, &c, &e), SW_E_SYNTAX);
    assert_int_equal(e.count, SW_COUNTOF(lines));
    for (size_t i = 0; i < e.count; i++) {
        assert_int_equal(e.list[i].line, lines[i]);
        assert_true(i == 0 || e.list[i - 1].line < e.list[i].line ||
                    e.list[i - 1].column < e.list[i].column);
    }
    sw_config_errors_fini(&e);
}

/* More mistakes than the list holds are counted. */
static void too_many(void **state)
{
    static char text[8192];
    struct sw_out out = sw_out_init(text, sizeof(text));
    struct sw_config_errors e;
    struct sw_config *c = NULL;

    (void)state;
    sw_out_cstr(&out, APPS ROUTES);
    for (unsigned i = 0; i < 100; i++) {
        sw_out_printf(&out, "unknown%u: x\n", i);
    }
    assert_int_equal(parse(sw_out_done(&out), NULL, &c, &e), SW_E_SYNTAX);
    assert_int_equal(e.count, 100);
    assert_int_equal(e.list[63].line, 66);
    sw_config_errors_fini(&e);
}

/* What ${...} brought in is not printed: a complaint goes to logs and terminals. */
static void secrets_stay_secret(void **state)
{
    static const char *const texts[] = {
        TOP("admin: { token: 'x ${file:secret.txt}' }"),
        TOP("sync: '${file:secret.txt}'"),
        TOP("workers: '${file:secret.txt}'"),
        TOP("store: '${file:secret.txt}'"),
        TOP("trusted: ['${file:secret.txt}']"),
        TOP("timeouts: { head: '${file:secret.txt}' }"),
        TOP("listen: [ { address: '${file:secret.txt}' } ]"),
        TOP("listen: '${file:secret.txt}'"),
        TOP("admin: '${file:secret.txt}'"),
        ROUTE("host: '${file:secret.txt}:'"),
        ROUTE("methods: ['${file:secret.txt}']"),
        ROUTE("expose: ['${file:secret.txt}']"),
        ROUTE("state: session, session: { key: '${file:secret.txt}' }"),
        APPS "routes: [ { path: '${file:secret.txt}', app: '${file:secret.txt}' } ]",
        APP("servers: ['${file:secret.txt}']"),
        APP("command: [x], replicas: '${file:secret.txt}'"),
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(texts); i++) {
        struct sw_config_errors e;
        struct sw_config *c = NULL;

        if (parse(sw_slice_cstr(texts[i]), NULL, &c, &e) != SW_E_SYNTAX) {
            fail_msg("%s", texts[i]);
        }
        for (size_t k = 0; k < e.count; k++) {
            if (sw_slice_find_slice(e.list[k].text, SW_S("hunter22")) < e.list[k].text.len) {
                fail_msg("%.*s", SW_SARG(e.list[k].text));
            }
        }
        sw_config_errors_fini(&e);
    }
}

static void flags_are_checked(void **state)
{
    static const struct {
        struct sw_config_override o;
        const char *fragment;
    } flags[] = {
        {{.listen = SW_S("8080")},
         "--listen needs HOST:PORT, [::]:PORT or unix:PATH, and this is a port"},
        {{.listen = SW_S("127.0.0.1:9000")}, "is the admin listener's address too"},
        {{.admin = SW_S("junk")}, "--admin needs"},
        {{.admin = SW_S("0.0.0.0:9000")},
         "the address of --admin can be reached by other machines"},
        {{.store = SW_S("./state")}, "--store needs lmdb:PATH, journal:PATH or memory:"},
        {{.store = SW_S("redis://x")}, "--store: `redis:` is not in this version"},
        {{.access_log = SW_S("a\nb")}, "--access-log must be"},
        {{.has_workers = true, .workers = 257}, "--workers needs 1 to 256"},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(flags); i++) {
        struct sw_config_errors e;
        struct sw_config *c = NULL;

        assert_int_equal(parse(SW_S(APPS ROUTES), &flags[i].o, &c, &e), SW_E_SYNTAX);
        if (e.count != 1 || e.list[0].line != 0 ||
            sw_slice_find_slice(e.list[0].text, sw_slice_cstr(flags[i].fragment)) ==
                e.list[0].text.len) {
            print_errors(&e);
            fail_msg("%s", flags[i].fragment);
        }
        sw_config_errors_fini(&e);
    }
}

/* Each row of the schema refuses a list of maps, or is one; so no type is forgotten. */
static void each_default_is_what_it_says(void **state)
{
    size_t count;
    const struct sw_key_row *key = sw_schema__rows(&count);

    (void)state;
    for (size_t i = 0; i < count; i++) {
        if (key[i].kind == SW_KIND_LATER) {
            assert_null(key[i].type);
            continue;
        }
        assert_non_null(key[i].type);
        assert_true(key[i].kind != SW_KIND_OWN || key[i].set != NULL);
        assert_true(key[i].kind != SW_KIND_NAME || key[i].names != NULL);
        assert_true(key[i].max == 0 || key[i].min <= key[i].max);
        assert_true(!key[i].required || key[i].dflt == NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_rows),
        cmocka_unit_test(accepted),
        cmocka_unit_test(all_at_once),
        cmocka_unit_test(too_many),
        cmocka_unit_test(secrets_stay_secret),
        cmocka_unit_test(flags_are_checked),
        cmocka_unit_test(each_default_is_what_it_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
