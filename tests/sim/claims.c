/* tests/sim/claims.c - what must be true of requests with an Idempotency-Key.
 *
 *  - Where nobody asked for repeats, an app begins with such a request at most once, whoever sends
 *    it how often; and whatever it wrote is in the state once or not at all.
 *  - What a client was told stays so: an answer is repeated with its status, its list and its
 *    bytes, and marked; "nobody knows" is never followed by an answer.
 *  - A key is of one request: another one with it is refused as soon as the first is known.
 *  - Key and state are one transaction. After every crash, and at the end, the store itself is
 *    read: the number of a request is in the state if, and only if, its key says that it is done.
 */
#include "world.h"

#include "placement/placement.h"

/* ---- keys ------------------------------------------------------------------------------------ */

struct claim *claim_new(struct world *w, enum route_id route, uint32_t who)
{
    struct claim *k;
    uint32_t serial = 1;

    if (w->claim_count == CLAIMS_MAX) {
        return NULL;
    }
    for (uint32_t i = 0; i < w->claim_count; i++) { /* the same texts for different principals */
        serial += w->claims_list[i].route == route && w->claims_list[i].who == who ? 1 : 0;
    }
    k = &w->claims_list[w->claim_count++];
    *k = (struct claim){.route = route, .who = who, .serial = serial};
    return k;
}

static const struct sw_config_route *config_route(const struct world *w, enum route_id route)
{
    char path[32];
    struct sw_slice head;

    (void)snprintf(path, sizeof(path), "/%s/", routes_info[route].name);
    head = sw_slice_cstr(path);
    for (size_t i = 0; i < w->config->route_count; i++) {
        if (sw_slice_starts(w->config->routes[i].path, head)) {
            return &w->config->routes[i];
        }
    }
    broken(w, "no route %s", path);
}

static void store_key_of(const struct world *w, const struct claim *k, struct sw_store_key *ret)
{
    char key[16], who[16];

    (void)snprintf(key, sizeof(key), "k%u", k->serial);
    if (routes_info[k->route].who) {
        (void)snprintf(who, sizeof(who), "u%u", k->who);
    } else { /* all clients are on one loop, and so at one address */
        (void)snprintf(who, sizeof(who), "10.0.0.1");
    }
    sw_claim_store_key(config_route(w, k->route), sw_slice_cstr(who), sw_slice_cstr(key), ret);
}

static const char *key_name(const struct claim *k)
{
    static char text[64];

    (void)snprintf(text, sizeof(text), "key k%u of u%u on %s", k->serial, k->who,
                   routes_info[k->route].name);
    return text;
}

/* ---- what apps and clients see --------------------------------------------------------------- */

void claim_begun(struct world *w, struct req *origin)
{
    struct claim *k = origin->claim;

    k->begun++;
    if (!routes_info[k->route].replay && k->begun > 1 + k->released) {
        broken(w, "request %u, %s: an app was given it %u times, %u of them it released",
               origin->number, key_name(k), k->begun, k->released);
    }
}

static bool lists_equal(const struct list *a, const struct list *b)
{
    return a->n == b->n && memcmp(a->ids, b->ids, a->n * sizeof(a->ids[0])) == 0;
}

/* Does the gateway keep this answer? */
static bool is_kept(const struct req *o, unsigned status)
{
    return status < 500 || o->fail_word == 's' ||
           (routes_info[o->route].stores_5xx && o->fail_word != 'r');
}

static void first_told(struct claim *k, const struct req *r, const struct answer *a)
{
    k->done = true;
    k->number = r->number;
    k->stamp = a->stamp;
    k->status = r->status;
    k->has_list = a->list != NULL;
    if (a->list != NULL) {
        k->list = *a->list;
    }
}

static void told_again(struct world *w, const struct req *r, const struct answer *a)
{
    struct claim *k = r->claim;

    if (k->number != r->number || k->stamp != a->stamp) {
        broken(w, "request %u, %s: answered as execution %u, before as %u of request %u", r->number,
               key_name(k), a->stamp, k->stamp, k->number);
    }
    if (k->status != r->status || k->has_list != (a->list != NULL) ||
        (a->list != NULL && !lists_equal(&k->list, a->list))) {
        broken(w, "request %u, %s: the same execution, another answer", r->number, key_name(k));
    }
}

void claim_answered(struct world *w, struct req *r, const struct answer *a)
{
    struct claim *k = r->claim;
    const struct req *o = req_origin(w, r);

    if (r->twist != 0) {
        broken(w, "request %u, %s: it was another request, and got its answer", r->number,
               key_name(k));
    }
    if (a->stamp == 0 || a->stamp > w->stamp_count || w->stamps[a->stamp - 1] != r->number) {
        broken(w, "request %u, %s: the answer to another one", r->number, key_name(k));
    }
    if (k->unknown && is_kept(o, r->status)) {
        broken(w, "request %u, %s: nobody knew the outcome, and now there is an answer", r->number,
               key_name(k));
    }
    if (!is_kept(o, r->status)) {
        if (a->replayed) {
            broken(w, "request %u, %s: a %u is repeated", r->number, key_name(k), r->status);
        }
        return;
    }
    if (a->replayed && a->bytes > routes_info[k->route].kept_bytes_max) {
        broken(w, "request %u: %lu bytes were kept", r->number, a->bytes);
    }
    w->replayed += a->replayed ? 1 : 0;
    if (k->done) {
        told_again(w, r, a);
    } else {
        first_told(k, r, a);
    }
    if (a->bytes_sure && k->bytes_known && k->bytes != a->bytes) {
        broken(w, "request %u, %s: %lu bytes, before it were %lu", r->number, key_name(k), a->bytes,
               k->bytes);
    }
    if (a->bytes_sure) {
        k->bytes_known = true;
        k->bytes = a->bytes;
    }
}

/* ---- refusals -------------------------------------------------------------------------------- */

static bool error_is(const struct req *r, const char *label)
{
    return strcmp(r->error, label) == 0;
}

static bool body_too_large(const struct world *w, const struct req *r)
{
    return r->body_bytes > w->config->limits.replay_buffer_bytes;
}

static void claim_unknown(struct world *w, const struct req *r)
{
    struct claim *k = r->claim;

    if (routes_info[k->route].retries) {
        broken(w, "request %u, %s: unknown, though it may be tried again", r->number, key_name(k));
    }
    if (k->done) {
        broken(w, "request %u, %s: unknown, and it was answered %u", r->number, key_name(k),
               k->status);
    }
    k->unknown = true;
}

static void claim_large(struct world *w, const struct req *r)
{
    struct claim *k = r->claim;
    const struct req *o = req_origin(w, r);

    if ((k->done && k->number != r->number) || r->twist != 0 || k->unknown) {
        broken(w, "request %u, %s: too large, and not done", r->number, key_name(k));
    }
    if (o->answer_bytes <= routes_info[k->route].kept_bytes_max && !w->plan.tight) {
        broken(w, "request %u, %s: %u bytes are too large", r->number, key_name(k),
               o->answer_bytes);
    }
    k->large = true;
}

void claim_refused(struct world *w, const struct req *r)
{
    struct claim *k = r->claim;

    if (r->refused) {
        return;
    }
    if (k != NULL && error_is(r, "body-large")) {
        if (!body_too_large(w, r) && !r->chunked) {
            broken(w, "request %u: its %u bytes of body are no more than may be held", r->number,
                   r->body_bytes);
        }
        return;
    }
    if (k == NULL) {
        if (strncmp(r->error, "idempotency-", 12) == 0 && r->bad_key == 0) {
            broken(w, "request %u without a key: %s", r->number, r->error);
        }
        return;
    }
    if (error_is(r, "idempotency-unknown")) {
        claim_unknown(w, r);
    } else if (error_is(r, "idempotency-too-large")) {
        claim_large(w, r);
    } else if (error_is(r, "idempotency-reused")) {
        if (r->twist == 0 && (k->misused == 0 || (k->done && k->number == r->number))) {
            broken(w, "request %u, %s: reused, and it is its own", r->number, key_name(k));
        }
    } else if (error_is(r, "conflict") && !req_origin(w, r)->expects && !w->plan.expiry) {
        broken(w, "request %u, %s: a conflict, where one after the other writes", r->number,
               key_name(k));
    } else if (r->status == 400) {
        broken(w, "request %u, %s: %s", r->number, key_name(k), r->error);
    }
}

bool claim_may_refuse(const struct world *w, const struct req *r)
{
    if (error_is(r, "body-large") && routes_info[r->route].keys != KEYS_NO) {
        return body_too_large(w, r) || r->chunked;
    }
    return r->claim != NULL &&
           (error_is(r, "idempotency-running") || error_is(r, "idempotency-too-large") ||
            error_is(r, "idempotency-reused")); /* whether these are right, was looked at */
}

bool claim_again(struct world *w, const struct req *r)
{
    if (r->claim == NULL || w->quiet || r->claim->tries >= TRIES_MAX) {
        return false;
    }
    if (r->outcome == OUT_CUT || r->outcome == OUT_LEFT || r->status >= 500 ||
        error_is(r, "idempotency-running")) {
        return chance(w, 85);
    }
    return chance(w, 15);
}

bool claim_settled(const struct req *r)
{
    if (r->outcome == OUT_ANSWERED) {
        return r->status < 500 || r->claim->done;
    }
    return error_is(r, "idempotency-unknown") || error_is(r, "idempotency-too-large") ||
           error_is(r, "idempotency-reused") || error_is(r, "body-large");
}

/* ---- the store itself ------------------------------------------------------------------------ */

struct kept {
    bool found, done;
    bool bare; /* done, and memory was short: without headers, so nobody knows which one it was */
    uint32_t number, stamp;
    unsigned status;
};

struct look {
    struct world *w;
    const char *when;
    struct sw_store_key keys[CLAIMS_MAX];
    struct kept kept[CLAIMS_MAX];
    uint8_t times[ALARM_BASE + REQS_MAX + 1]; /* in states */
};

static uint32_t line_number(struct sw_slice lines, const char *name)
{
    struct sw_slice line, field, value;
    uint64_t number = 0;

    while (lines.len > 0) {
        (void)sw_slice_cut(lines, '\n', &line, &lines);
        if (sw_slice_cut(line, ':', &field, &value) &&
            sw_slice_eq_nocase(field, sw_slice_cstr(name)) &&
            sw_slice_u64(sw_slice_trim(sw_slice_head(value, sw_slice_find(value, '\r'))),
                         &number)) {
            return (uint32_t)number;
        }
    }
    return 0;
}

static void look_claim(struct look *k, const struct sw_store_key *key, const struct sw_record *r)
{
    struct sw_claim c;

    for (uint32_t i = 0; i < k->w->claim_count; i++) {
        if (memcmp(&k->keys[i], key, sizeof(*key)) != 0) {
            continue;
        }
        if (sw_claim_read(r->value, &c) != SW_OK) {
            broken(k->w, "%s: the record of %s is damaged", k->when,
                   key_name(&k->w->claims_list[i]));
        }
        k->kept[i] = (struct kept){
            .found = true,
            .done = c.state == SW_CLAIM_DONE,
            .bare = c.state == SW_CLAIM_DONE && c.headers.len == 0 && k->w->plan.tight,
            .status = c.status,
            .number = line_number(c.headers, "X-Sim"),
            .stamp = line_number(c.headers, "X-Stamp"),
        };
        return;
    }
    broken(k->w, "%s: a key that nobody sent is kept", k->when);
}

static void look_state(struct look *k, const struct sw_record *r)
{
    static const struct sw_slice begin = SW_S("{\"ids\":["), end = SW_S("]}");
    struct list l;

    if (!sw_slice_starts(r->value, begin) || !sw_slice_ends(r->value, end)) {
        return; /* of another kind of route */
    }
    if (!list_parse(sw_slice_of(r->value.ptr + begin.len, r->value.len - begin.len - end.len),
                    &l)) {
        broken(k->w, "%s: a state is no list", k->when);
    }
    for (uint32_t i = 0; i < l.n; i++) {
        SW_ASSERT(l.ids[i] < SW_COUNTOF(k->times));
        k->times[l.ids[i]]++;
    }
    alarms_check(k->w, &l, r->extra, k->when);
}

static void look_record(void *arg, const struct sw_store_key *key, const struct sw_record *r)
{
    struct look *k = arg;

    if (r->kind == SW_RECORD_CLAIM) {
        look_claim(k, key, r);
    } else if (r->kind == SW_RECORD_STATE) {
        look_state(k, r);
    }
}

/* One request of a key: is it in the state as often as it should be? */
static void check_number(const struct look *k, const struct claim *c, const struct kept *kept,
                         const struct req *o)
{
    uint32_t times = k->times[o->number];
    bool must = kept->done && kept->number == o->number && req_writes(o) && kept->status < 500;

    if (!routes_info[c->route].session) {
        return;
    }
    if (k->w->plan.expiry) { /* it may be gone by itself */
        must = must && times > 0;
    }
    if (kept->bare && kept->status < 500) { /* of one of them it is */
        must = c->done ? c->number == o->number && req_writes(o) : times > 0;
    }
    if (times != (must ? 1u : 0u)) {
        broken(k->w, "%s: %s is %s, and request %u is %u times in the state", k->when, key_name(c),
               !kept->found ? "free"
               : kept->done ? "done"
                            : "open",
               o->number, times);
    }
}

static void check_claim(const struct look *k, uint32_t at)
{
    struct world *w = k->w;
    const struct claim *c = &w->claims_list[at];
    const struct kept *kept = &k->kept[at];

    if (kept->done && !kept->bare &&
        (kept->stamp == 0 || kept->stamp > w->stamp_count ||
         w->stamps[kept->stamp - 1] != kept->number)) {
        broken(w, "%s: %s keeps an answer that no app gave", k->when, key_name(c));
    }
    if (c->done && (!kept->done || kept->status != c->status ||
                    (!kept->bare && (kept->number != c->number || kept->stamp != c->stamp)))) {
        broken(w, "%s: %s was answered as execution %u, and is %s", k->when, key_name(c), c->stamp,
               !kept->found ? "free"
               : kept->done ? "another one"
                            : "open");
    }
    if (c->unknown && (!kept->found || kept->done)) {
        broken(w, "%s: nobody knew the outcome of %s, and it is %s", k->when, key_name(c),
               kept->found ? "done" : "free");
    }
    if (c->large && !kept->done) {
        broken(w, "%s: the answer of %s was too large, and it is not done", k->when, key_name(c));
    }
    for (uint32_t i = 0; i < w->req_count; i++) {
        if (w->reqs[i].claim == c && w->reqs[i].number == w->reqs[i].id) {
            check_number(k, c, kept, &w->reqs[i]);
        }
    }
}

void store_check(struct world *w, const char *when)
{
    struct look *k = calloc(1, sizeof(*k));
    int64_t now_unix_s = sw_loop_now_unix_s(w->outside);

    SW_ASSERT(k != NULL);
    k->w = w;
    k->when = when;
    for (uint32_t i = 0; i < w->claim_count; i++) {
        store_key_of(w, &w->claims_list[i], &k->keys[i]);
    }
    if (sw_store_scan(w->store, NULL, SIZE_MAX, now_unix_s, look_record, k) != SW_OK) {
        broken(w, "%s: the store cannot be read", when);
    }
    for (uint32_t i = 0; i < w->claim_count; i++) {
        check_claim(k, i);
    }
    free(k);
}
