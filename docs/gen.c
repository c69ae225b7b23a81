/* docs/gen.c - prints the pages that are made from the program's own tables: limits, errors.
 *
 * `script/docs` writes them; a test compares them with what is in the tree.
 */
#include "app/control.h"
#include "base/json.h"
#include "config/config.h"
#include "gateway/gateway_priv.h"

struct fixed {
    const char *name;
    unsigned long long value;
    const char *unit, *text;
};

static const struct fixed fixed_limits[] = {
    {"SW_LISTEN_MAX", SW_LISTEN_MAX, "addresses",
     "`listen`; more are an error of the configuration"},
    {"SW_APPS_MAX", SW_APPS_MAX, "apps", "more are an error of the configuration"},
    {"SW_REPLICAS_MAX", SW_REPLICAS_MAX, "instances of an app",
     "`replicas` and `servers`; more are an error of the configuration"},
    {"SW_ROUTES_MAX", SW_ROUTES_MAX, "routes", "more are an error of the configuration"},
    {"SW_ROUTE_SEGMENTS_MAX", SW_ROUTE_SEGMENTS_MAX, "segments of a route's path",
     "more are an error of the configuration"},
    {"SW_KEYSETS_MAX", SW_KEYSETS_MAX, "different `token.keys`",
     "more are an error of the configuration"},
    {"SW_JWKS_BYTES_MAX", SW_JWKS_BYTES_MAX, "bytes of a key set",
     "longer: it is refused, the last good one stands"},
    {"SW_JWKS_KEYS_MAX", SW_JWKS_KEYS_MAX, "keys of a set, with those kept after they were removed",
     "more: it is refused; of the kept ones the oldest go first"},
    {"SW_KEYSET_FRESH_S", SW_KEYSET_FRESH_S, "seconds until a key set's URL is fetched again",
     "unless its answer says another time"},
    {"SW_KEYSET_FRESH_S_MIN", SW_KEYSET_FRESH_S_MIN, "seconds that such an answer can say at least",
     "less counts as this"},
    {"SW_KEYSET_FRESH_S_MAX", SW_KEYSET_FRESH_S_MAX, "seconds that it can say at most",
     "more counts as this"},
    {"SW_KEYSET_AGAIN_S", SW_KEYSET_AGAIN_S, "seconds between two fetches that tokens cause",
     "sooner: the token is refused, 401 `token-kid`"},
    {"SW_KEYSET_FETCH_MS", SW_KEYSET_FETCH_MS, "ms of one fetch, with all redirects",
     "then it failed, and the last good set stands"},
    {"SW_KEYSET_REDIRECTS_MAX", SW_KEYSET_REDIRECTS_MAX, "redirects of one fetch",
     "more: it failed"},
    {"SW_KEYSET_RETRY_S_MAX", SW_KEYSET_RETRY_S_MAX, "seconds between two tries after failures",
     "the time doubles from 1 s up to this"},
    {"SW_KEYSET_KEEP_S", SW_KEYSET_KEEP_S, "seconds of a key that was taken out of its set",
     "then tokens that it signed are refused"},
    {"SW_KEYSET_UNKNOWN_MAX", SW_KEYSET_UNKNOWN_MAX, "key ids remembered as not there, a source",
     "beyond it the oldest is forgotten"},
    {"SW_KEYSET_WAITS_MAX", SW_KEYSET_WAITS_MAX, "exchanges that wait for one fetch",
     "more are refused, 401 `token-kid`"},
    {"SW_TOKEN_AUDIENCES_MAX", SW_TOKEN_AUDIENCES_MAX, "texts of `token.audience`",
     "more are an error of the configuration"},
    {"SW_TOKEN_SCOPES_MAX", SW_TOKEN_SCOPES_MAX, "texts of `token.require.scope`",
     "more are an error of the configuration"},
    {"SW_TOKEN_CLAIMS_MAX", SW_TOKEN_CLAIMS_MAX, "claims of `token.require.claims`",
     "more are an error of the configuration"},
    {"SW_TOKEN_HEADERS_MAX", SW_TOKEN_HEADERS_MAX, "headers of `token.headers`",
     "more are an error of the configuration"},
    {"SW_ROUTE_CAPTURES_MAX", SW_ROUTE_CAPTURES_MAX, "names in a route's path",
     "more are an error of the configuration"},
    {"SW_CONTROL_INSTANCES", SW_CONTROL_INSTANCES, "processes of apps",
     "a further start is refused and logged"},
    {"SW_JSON_DEPTH_MAX", SW_JSON_DEPTH_MAX, "levels of a state's JSON",
     "deeper: 502 `update-json`"},
    {"SW_JSON_MEMBERS_MAX", SW_JSON_MEMBERS_MAX, "members of one object of a state",
     "more: 502 `update-json`"},
    {"SW_SUBJECT_BYTES_MAX", SW_SUBJECT_BYTES_MAX, "bytes of a subject",
     "longer: 502 `update-syntax`"},
    {"SW_ENVELOPE_HEADERS", SW_ENVELOPE_HEADERS, "header lines of a commit envelope",
     "more: 502 `update-envelope`"},
    {"SW_ALARMS_MAX", SW_ALARMS_MAX, "alarms of one state", "a further one: 502 `update-alarm`"},
    {"SW_ALARM_CHANGES_MAX", SW_ALARM_CHANGES_MAX, "alarms set or canceled by one answer",
     "more: 502 `update-alarm`; in an envelope `update-envelope`"},
    {"SW_ALARM_ID_BYTES_MAX", SW_ALARM_ID_BYTES_MAX, "bytes of an alarm's id",
     "longer: 502 `update-alarm`"},
    {"SW_ALARM_DATA_BYTES_MAX", SW_ALARM_DATA_BYTES_MAX, "bytes of an alarm's data",
     "longer: 502 `update-alarm`"},
    {"SW_ALARM_MS_MAX", SW_ALARM_MS_MAX / 86400000, "days from now to an alarm",
     "later: 502 `update-alarm`"},
    {"SW_ALARM_TRIES_MAX", SW_ALARM_TRIES_MAX, "deliveries of one alarm",
     "then it is given up, with an error in the log"},
    {"SW_SEALED_BYTES_MAX", SW_SEALED_BYTES_MAX, "bytes of a sealed state's cookie, name and value",
     "more: 502 `sealed-large`, or it becomes a session (`oversize: spill`)"},
    {"SW_COOKIE_FIELD_BYTES_MAX", SW_COOKIE_FIELD_BYTES_MAX,
     "bytes of a client's Cookie field with its sealed state",
     "more: 502 `sealed-large`, or it becomes a session (`oversize: spill`)"},
    {"SW_COOKIE_AGE_S_MAX", SW_COOKIE_AGE_S_MAX / 86400, "days of a sealed state's cookie",
     "browsers know no longer one; it is sent again when it is used"},
    {"SW_SEALED_SKEW_S", SW_SEALED_SKEW_S, "seconds between the clocks of two gateways",
     "what was sealed further in the future is no state"},
    {"SW_SEALED_GRACE_S", SW_SEALED_GRACE_S,
     "seconds in which a sealed state that was replaced may be read",
     "later: 409 `sealed-old` with `replay-guard`; after a new id it is no state"},
    {"SW_CLAIM_KEY_BYTES_MAX", SW_CLAIM_KEY_BYTES_MAX, "bytes of an Idempotency-Key",
     "longer: 400 `idempotency-key-malformed`"},
    {"SW_FRESH_CLIENTS", SW_FRESH_CLIENTS, "clients whose new sessions and keys are counted",
     "a further one takes the place of who owes least, whose count begins anew"},
    {"SW_VISITORS_MAX", SW_VISITORS_MAX, "visitors whose hash a worker remembers",
     "a further one takes an earlier one's place, and is hashed again"},
    {"SW_TOKEN_BYTES_MAX", SW_TOKEN_BYTES_MAX, "bytes of a token",
     "longer: 401 `token-large`; of a minted one 502 `mint-large`"},
    {"SW_TOKEN_STATE_BYTES_MAX", SW_TOKEN_STATE_BYTES_MAX,
     "bytes of a token's claims, or its state, in ASCII",
     "longer: 401 `token-large`; of a minted one 502 `mint-large`"},
    {"SW_TOKEN_LINES_BYTES_MAX", SW_TOKEN_LINES_BYTES_MAX,
     "bytes of the headers that `token.headers` makes", "longer: 401 `token-large`"},
    {"SW_TOKEN_CACHE_ENTRIES", SW_TOKEN_CACHE_ENTRIES,
     "tokens whose signature a worker remembers",
     "a further one takes the place of one that was not used for long"},
    {"SW_PHANTOMS_MAX", SW_PHANTOMS_MAX, "phantom tokens that a worker keeps",
     "a further one takes an earlier one's place, and that is signed again"},
    {"SW_PHANTOM_BYTES_MAX", SW_PHANTOM_BYTES_MAX, "bytes of a phantom token that is kept",
     "a longer one is signed for each request"},
    {"SW_KEYS_MAX", SW_KEYS_MAX, "keys of the ring",
     "a file with more is refused; `stateway keys add` and `keys.rotate` add none"},
    {"SW_KEYS_SEED_S", SW_KEYS_SEED_S, "seconds from a seed to its promotion by `keys.rotate`",
     "a gateway that has not read the file by then does not know the key"},
    {"SW_KEYS_MARGIN_S", SW_KEYS_MARGIN_S, "seconds a retired key stays beyond what it made",
     "clocks that differ by more: visitors begin anew"},
    {"SW_LEDGER_MAX", SW_LEDGER_MAX, "sticky visitors counted per app",
     "beyond it they are served, but a drain waits for the idle time"},
    {"SW_BUF_BYTES", SW_BUF_BYTES, "bytes of a buffer of the loop",
     "no buffer left: the reader waits, or the exchange gets 503 `no-buffers`"},
    {"SW_UPSTREAM_IDLE_INSTANCE_MAX", SW_UPSTREAM_IDLE_INSTANCE_MAX,
     "idle connections to one instance, per worker", "a further one is closed"},
    {"SW_UPSTREAM_IDLE_MAX", SW_UPSTREAM_IDLE_MAX, "idle connections to all instances, per worker",
     "a further one is closed"},
    {"SW_UPSTREAM_IDLE_NS", SW_UPSTREAM_IDLE_NS / SW_NS_PER_S, "seconds of an idle connection",
     "then it is closed"},
    {"SW_RELAY_HIGH_BYTES", SW_RELAY_HIGH_BYTES, "bytes queued for one side of an exchange",
     "beyond it the other side is not read"},
    {"SW_TRAILER_BYTES_MAX", SW_TRAILER_BYTES_MAX, "bytes of an answer's trailer section",
     "longer: the answer is cut off, visibly"},
    {"SW_INTERIM_MAX", SW_INTERIM_MAX, "1xx heads of one answer", "more: 502 `app-head`"},
    {"SW_TUNNEL_IDLE_NS", SW_TUNNEL_IDLE_NS / SW_NS_PER_S, "seconds of silence of a tunnel",
     "then both sides are closed"},
    {"SW_LINGER_NS", SW_LINGER_NS / SW_NS_PER_S, "seconds for a client to take its last answer",
     "then its connection is closed"},
    {"SW_STATS_ROWS", SW_STATS_ROWS,
     "combinations of app, placement, status and verdict per worker",
     "further ones are counted together"},
};

static void print_limits(void)
{
    const struct sw_config_key_doc *docs;
    size_t count = sw_config_key_docs(&docs);

    printf("# Limits\n\n"
           "Made by `script/docs` from the tables that the program reads. Every queue, buffer and "
           "table "
           "has an end, and here stands what happens there.\n\n"
           "## By configuration\n\n| key | unit | default | at the edge |\n|---|---|---|---|\n");
    for (size_t i = 0; i < count; i++) {
        const struct sw_config_key_doc *d = &docs[i];

        if (d->dflt != NULL &&
            (strstr(d->type, "size") != NULL || strstr(d->type, "number") != NULL ||
             strstr(d->type, "duration") != NULL || strstr(d->type, "percent") != NULL)) {
            printf("| `%s` | %s | %s | %s |\n", d->path, d->type, d->dflt, d->text);
        }
    }
    printf("\n## Built in\n\n| name | limit | at the edge |\n|---|---|---|\n");
    for (size_t i = 0; i < SW_COUNTOF(fixed_limits); i++) {
        const struct fixed *f = &fixed_limits[i];

        printf("| `%s` | %llu %s | %s |\n", f->name, f->value, f->unit, f->text);
    }
}

static void print_errors(void)
{
    static const char *const levels[] = {"error", "warn", "info", "debug"};

    printf(
        "# Errors\n\n"
        "Made by `script/docs` from `src/base/errors.def`. The label stands in the header "
        "`Stateway-Error`, in the access log (`error=`) and in the metric `stateway_errors_total`. "
        "Status `-`: the connection is closed.\n\n"
        "| label | status | log level | meaning |\n|---|---|---|---|\n");
    for (int i = 1; i < SW_E_COUNT; i++) {
        enum sw_err err = (enum sw_err)i;
        char status[8] = "-";

        if (sw_err_status(err) != 0) {
            snprintf(status, sizeof(status), "%u", sw_err_status(err));
        }
        printf("| `%s` | %s | %s | %s |\n", sw_err_label(err), status, levels[sw_err_level(err)],
               sw_err_text(err));
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "limits") == 0) {
        print_limits();
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "errors") == 0) {
        print_errors();
        return 0;
    }
    fprintf(stderr, "usage: gen limits|errors\n");
    return 2;
}
