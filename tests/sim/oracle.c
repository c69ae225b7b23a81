/* tests/sim/oracle.c - what must be true, whatever breaks.
 *
 *  - An answered client always implies a committed state: each acknowledged update is in the state
 *    that every later request is given, at its place, once.
 *  - What was refused, or failed, is not in it.
 *  - A state is seen by those who hold its cookie only; an ended one never comes back.
 *  - A request that may not be repeated begins at most once on an app.
 *
 * Idempotency-Key has its own rules in claims.c, alarms in alarms.c.
 *
 * A state on the `list` routes is the list of the numbers of the requests that changed it, in the
 * order of their commits. So two lists of one state are always the one a beginning of the other.
 */
#include "world.h"

struct req *req_new(struct world *w)
{
    struct req *r;

    SW_ASSERT(w->req_count < REQS_MAX);
    r = &w->reqs[w->req_count++];
    *r = (struct req){.id = w->req_count, .number = w->req_count};
    return r;
}

struct req *req_origin(struct world *w, const struct req *r)
{
    return req_of(w, r->number);
}

struct req *req_of(struct world *w, uint32_t id)
{
    return id >= 1 && id <= w->req_count ? &w->reqs[id - 1] : NULL;
}

bool req_writes(const struct req *r)
{
    return r->act == ACT_ADD || r->act == ACT_RENEW || r->act == ACT_SET || r->act == ACT_CANCEL;
}

void oracle_sent(struct world *w, struct req *r)
{
    struct session *s = r->session;

    r->sent_ns = now_ns(w);
    r->outcome = OUT_PENDING;
    note(w, "client %u sends %u (%u): %s %s%s, %u bytes%s%s", r->client, r->id, r->number,
         act_name(r->act), routes_info[r->route].name, r->idempotent ? "" : " (once)",
         r->body_bytes, r->cookie != NULL ? ", with cookie" : "",
         r->claim != NULL ? ", with key" : "");
    if (r->claim != NULL) {
        r->claim->tries++;
        r->done_before = r->claim->done;
    }
    if (s == NULL) {
        return;
    }
    r->acked_before = s->acked;
    r->gone_before = s->ended;
    if (r->act == ACT_DEL) {
        s->end_asked = true;
    }
    if (r->act == ACT_RENEW && r->cookie != NULL) {
        for (uint32_t i = 0; i < w->cookie_count;
             i++) { /* an old id leads to the new one for a while */
            w->cookies[i].renew_asked |= w->cookies[i].session == s;
        }
        r->renews_open = s->renews_sent > s->renews_acked;
        r->renews_at = ++s->renews_sent;
        s->renew_ns = s->renews_sent == 1 ? now_ns(w) : s->renew_ns;
        s->moved = true;
    }
    if (req_writes(r) && r->method == SW_METHOD_GET) {
        s->moved = true; /* it runs beside the others, and one of them will meet a conflict */
    }
}

void oracle_executed(struct world *w, struct req *r)
{
    r->executed_ns = r->executed == 0 ? now_ns(w) : r->executed_ns;
    r->executed++;
    w->executed++;
    note(w, "an app executes %u", r->id);
    sw_sim_note(w->sim, r->id);
    if (r->begun > 1 && r->claim == NULL && /* with a key: claims.c */
        ((!r->idempotent && !routes_info[r->route].replay) || r->route == ROUTE_NEVER)) {
        broken(w, "request %u must not be repeated, and an app got it %u times", r->id, r->begun);
    }
}

/* ---- states ---------------------------------------------------------------------------------- */

static struct session *session_new(struct world *w, enum route_id route)
{
    struct session *s;

    if (w->session_count == SESSIONS_MAX) {
        broken(w, "more sessions than the test can hold");
    }
    s = &w->sessions[w->session_count++];
    *s = (struct session){.route = route, .serial = w->session_count};
    return s;
}

struct session *oracle_room(struct world *w, enum route_id route)
{
    return session_new(w, route);
}

static struct cookie *cookie_new(struct world *w, struct session *s, struct sw_slice value)
{
    struct cookie *k;

    if (w->cookie_count == COOKIES_MAX) {
        broken(w, "more cookies than the test can hold");
    }
    for (uint32_t i = 0; i < w->cookie_count; i++) {
        if (sw_slice_eq(sw_slice_cstr(w->cookies[i].value), value)) {
            broken(w, "a cookie's value was given out twice");
        }
    }
    k = &w->cookies[w->cookie_count++];
    *k = (struct cookie){.route = s->route, .session = s};
    SW_ASSERT(value.len < sizeof(k->value));
    memcpy(k->value, value.ptr, value.len);
    return k;
}

static void check_ids(struct world *w, const struct req *r, const struct list *l, uint32_t from)
{
    for (uint32_t i = from; i < l->n; i++) {
        bool fired = l->ids[i] >= ALARM_BASE; /* alarms.c looks at its place */
        const struct req *of = req_of(w, fired ? l->ids[i] - ALARM_BASE : l->ids[i]);

        if (of == NULL || of->route != r->route || of->number != of->id || !req_writes(of) ||
            of->executed == 0 || (fired && of->deliveries == 0)) {
            broken(w, "request %u: the state holds %u, which never wrote it", r->id, l->ids[i]);
        }
        if (routes_info[r->route].by_path && of->room != r->room) {
            broken(w, "request %u: the state of room %u holds %u of room %u", r->id, r->room,
                   of->id, of->room);
        }
        for (uint32_t k = 0; k < i; k++) {
            if (l->ids[k] == l->ids[i]) {
                broken(w, "request %u: the state holds %u twice", r->id, l->ids[i]);
            }
        }
    }
}

void oracle_chain(struct world *w, const struct req *r, struct session *s, const struct list *l)
{
    uint32_t common = SW_MIN(l->n, s->chain.n), standing[ALARM_IDS];

    if (routes_info[s->route].alarms) {
        alarms_walk(w, l, standing);
    }
    if (w->plan.expiry && routes_info[s->route].by_path) { /* it may begin anew at any time */
        check_ids(w, r, l, 0);
        return;
    }
    for (uint32_t i = 0; i < common; i++) {
        if (l->ids[i] != s->chain.ids[i]) {
            broken(w, "request %u: update %u of session %u was %u and is %u", r->id, i, s->serial,
                   s->chain.ids[i], l->ids[i]);
        }
    }
    if (l->n > s->chain.n) {
        check_ids(w, r, l, s->chain.n);
        s->chain = *l;
    }
    s->acked = SW_MAX(s->acked, l->n);
}

/* l was seen as the state of s, now. */
static void chain_seen(struct world *w, const struct req *r, struct session *s,
                       const struct list *l)
{
    bool anew = w->plan.expiry && routes_info[s->route].by_path;

    if (!anew && l->n < r->acked_before + (req_writes(r) ? 1 : 0)) {
        broken(w, "request %u: %u updates of session %u were acknowledged before, %u are there",
               r->id, r->acked_before, s->serial, l->n);
    }
    oracle_chain(w, r, s, l);
}

/* Everything acknowledged before r was sent must be among what it saw. */
static void set_seen(struct world *w, const struct req *r, const struct session *s,
                     const struct list *l)
{
    for (uint32_t i = 0; i < s->set.n; i++) {
        if (s->set_acked_ns[i] < r->sent_ns && !list_has(l, s->set.ids[i])) {
            broken(w, "request %u: %u was acknowledged and is not in the state", r->id,
                   s->set.ids[i]);
        }
    }
    check_ids(w, r, l, 0);
}

static void set_add(struct world *w, struct session *s, uint32_t id)
{
    if (s->set.n < LIST_MAX) {
        s->set_acked_ns[s->set.n] = now_ns(w);
        s->set.ids[s->set.n++] = id;
    }
}

#define OLD_ID_NS (8 * SW_NS_PER_S)

/* The state was not there. May that be? */
static void absent(struct world *w, const struct req *r, const struct session *s)
{
    if (s->end_asked || w->plan.expiry) {
        return;
    }
    if (r->cookie != NULL && r->cookie->renew_asked &&
        (s->renews_sent > 1 || now_ns(w) > s->renew_ns + OLD_ID_NS)) {
        return; /* an old id leads to the new one for ten seconds, and one step far */
    }
    if (r->acked_before > 0 ||
        (s->route == ROUTE_MERGE && s->set.n > 0 && s->set_acked_ns[0] < r->sent_ns)) {
        broken(w, "request %u: session %u is lost: %u updates were acknowledged", r->id, s->serial,
               r->acked_before);
    }
}

static struct session *fresh(struct world *w, struct req *r, struct visitor *v,
                             struct sw_slice set_cookie)
{
    struct session *s;
    struct cookie *k;

    if (set_cookie.ptr == NULL || set_cookie.len == 0) {
        broken(w, "request %u: a new state without a cookie", r->id);
    }
    s = session_new(w, r->route);
    k = cookie_new(w, s, set_cookie);
    if (v != NULL) {
        v->jar[r->route] = k;
    }
    return s;
}

/* k is the new id. Another request may have renewed it already, by way of the old one. */
static void renewed(struct session *s, const struct req *r, struct cookie *k)
{
    s->renews_acked++;
    k->renew_asked = r->renews_open || s->renews_sent != r->renews_at;
}

static void answered_list(struct world *w, struct req *r, struct visitor *v, struct list *l,
                          struct sw_slice set_cookie)
{
    struct session *s = r->session;
    uint32_t before = req_writes(r) ? l->n - 1 : l->n;

    if (req_writes(r) && (l->n == 0 || l->ids[l->n - 1] != r->number)) {
        broken(w, "request %u: its own update is not in what the app wrote", r->id);
    }
    if (s == NULL && before > 0) {
        broken(w, "request %u: a visitor without a cookie was given a state", r->id);
    }
    if (s == NULL || before == 0) {
        if (s != NULL) {
            absent(w, r, s);
        }
        if (!req_writes(r)) {
            return;
        }
        if (!routes_info[r->route].by_path) {
            s = fresh(w, r, v, set_cookie);
            r->session = s; /* where its alarm lives */
            r->acked_before = 0;
        }
        chain_seen(w, r, s, l);
        return;
    }
    if (r->gone_before) {
        broken(w, "request %u: session %u had ended, and came back", r->id, s->serial);
    }
    chain_seen(w, r, s, l);
    if (r->act == ACT_RENEW && r->cookie != NULL) {
        struct cookie *k;

        if (set_cookie.ptr == NULL || set_cookie.len == 0) {
            broken(w, "request %u: renewed without a new cookie", r->id);
        }
        k = cookie_new(w, s, set_cookie);
        renewed(s, r, k);
        if (v != NULL) {
            v->jar[r->route] = k;
        }
    } else if (set_cookie.ptr != NULL && set_cookie.len > 0) {
        broken(w, "request %u: a new cookie for no reason", r->id);
    }
    if (r->act == ACT_DEL && !routes_info[r->route].by_path) {
        s->ended = true;
        s->ended_ns = now_ns(w);
    }
}

/* An answer of before: what it says of the state was true then. */
static void replayed_list(struct world *w, const struct req *r, const struct list *l)
{
    if (req_writes(r) && (l->n == 0 || l->ids[l->n - 1] != r->number)) {
        broken(w, "request %u: its own update is not in what is repeated", r->id);
    }
    oracle_chain(w, r, r->session, l);
}

static void answered_set(struct world *w, struct req *r, struct visitor *v, const struct list *l,
                         struct sw_slice set_cookie)
{
    struct session *s = r->session;
    bool new_cookie = set_cookie.ptr != NULL && set_cookie.len > 0;

    if (s == NULL && l->n > 0) {
        broken(w, "request %u: a visitor without a cookie was given a state", r->id);
    }
    if (s != NULL && l->n > 0 && r->gone_before) {
        broken(w, "request %u: session %u had ended, and came back", r->id, s->serial);
    }
    if (s != NULL && l->n > 0 && r->route == ROUTE_MERGE) {
        set_seen(w, r, s, l);
    }
    if (s != NULL && l->n == 0) {
        if (r->route == ROUTE_MERGE) {
            absent(w, r, s);
        }
        s = new_cookie ? NULL : s;
    }
    if (new_cookie) {
        if (s == NULL) {
            s = fresh(w, r, v, set_cookie);
        } else {
            struct cookie *k = cookie_new(w, s, set_cookie);
            renewed(s, r, k);
            if (v != NULL) {
                v->jar[r->route] = k;
            }
        }
    }
    if (req_writes(r) && s != NULL) {
        set_add(w, s, r->id);
    }
    if (r->act == ACT_DEL && s != NULL && l->n > 0) {
        s->ended = true;
    }
}

void oracle_answered(struct world *w, struct req *r, struct visitor *v, const struct answer *a)
{
    struct list l = {0};

    r->outcome = OUT_ANSWERED;
    r->done_ns = now_ns(w);
    w->answered++;
    w->by_status[r->status % SW_COUNTOF(w->by_status)]++;
    if (r->refused) {
        broken(w, "request %u: an app answered what should have been refused", r->id);
    }
    if (req_origin(w, r)->executed == 0) {
        broken(w, "request %u: answered, and no app executed it", r->id);
    }
    if (r->claim != NULL) {
        claim_answered(w, r, a);
    } else if (a->replayed) {
        broken(w, "request %u has no key, and its answer is a repeated one", r->id);
    }
    if (!routes_info[r->route].session) {
        return;
    }
    if ((r->act == ACT_BADJSON || r->act == ACT_TWO) && !(w->quiet && r->claim != NULL)) {
        broken(w, "request %u: an update that is none was let through", r->id);
    }
    if (a->list == NULL) {
        broken(w, "request %u: the app's list did not come through", r->id);
    }
    l = *a->list;
    if (r->act == ACT_FAIL && r->status >= 500 && r->route != ROUTE_MERGE) {
        if (l.n == 0 || l.ids[l.n - 1] != r->number) {
            broken(w, "request %u: a failed update lost its number", r->id);
        }
        l.n--;
    }
    if (a->set_cookie.ptr != NULL && a->set_cookie.len == 0 && v != NULL) {
        if (r->act != ACT_DEL) {
            broken(w, "request %u: its cookie was cleared", r->id);
        }
        if (v->jar[r->route] == r->cookie) {
            v->jar[r->route] = NULL;
        }
    }
    if (a->replayed) {
        replayed_list(w, r, &l);
    } else if (routes_info[r->route].list) {
        answered_list(w, r, v, &l, a->set_cookie);
    } else {
        if (r->route == ROUTE_LAST && req_writes(r)) {
            l.n--; /* its own: what remains is what it was given */
        }
        answered_set(w, r, v, &l, a->set_cookie);
    }
}

/* ---- no answer ------------------------------------------------------------------------------- */

static const struct req *req_of_const(const struct world *w, uint32_t number)
{
    return &w->reqs[number - 1];
}

static bool may_fail_in_calm(const struct world *w, const struct req *r)
{
    const struct session *s = r->session;
    bool conflict = strcmp(r->error, "conflict") == 0 || strcmp(r->error, "state-gone") == 0;

    if (!act_is_plain(r->act) || r->refused) {
        return true;
    }
    if (conflict) {
        return r->route == ROUTE_CAS || req_of_const(w, r->number)->expects ||
               (s != NULL && (s->moved || s->end_asked));
    }
    return claim_may_refuse(w, r);
}

void oracle_unanswered(struct world *w, struct req *r, enum outcome how)
{
    r->outcome = how;
    r->done_ns = now_ns(w);
    switch (how) {
    case OUT_OWN:
        w->own++;
        w->by_status[r->status % SW_COUNTOF(w->by_status)]++;
        claim_refused(w, r);
        if (w->plan.calm && !may_fail_in_calm(w, r)) {
            broken(w, "request %u (%s %s) got %u %s in a calm world", r->id, act_name(r->act),
                   routes_info[r->route].name, r->status, r->error);
        }
        break;
    case OUT_CUT:
        w->cut++;
        break;
    default:
        w->left++;
        break;
    }
}

/* ---- the end --------------------------------------------------------------------------------- */

void oracle_final(struct world *w, struct session *s, const struct list *list, bool present)
{
    if (!present || list == NULL) {
        return; /* whether that may be was looked at when it was answered */
    }
    alarms_final(w, s, list);
    if (routes_info[s->route].list && list->n < s->chain.n) {
        broken(w, "session %u ends with %u updates, %u were seen", s->serial, list->n, s->chain.n);
    }
    for (uint32_t i = 0; i < s->set.n; i++) {
        if (s->route == ROUTE_MERGE && !list_has(list, s->set.ids[i])) {
            broken(w, "session %u ends without %u", s->serial, s->set.ids[i]);
        }
    }
}

static void worker_each(struct world *w,
                        void (*fn)(struct world *, struct sw_worker *, struct sw_loop *))
{
    for (uint32_t i = 0; w->gw.up && i < w->gw.worker_count; i++) {
        fn(w, w->gw.workers[i], w->gw.loops[i]);
    }
}

static void exchanges_of(struct world *w, struct sw_worker *k, struct sw_loop *loop)
{
    uint64_t now = now_ns(w);

    (void)loop;
    for (struct sw_link *l = k->exchange_list.next; l != &k->exchange_list; l = l->next) {
        const struct sw_exchange *x = SW_CONTAINER(l, struct sw_exchange, link);

        if (x->state < EX_SEND && now > x->deadline_ns + 2 * SW_NS_PER_S) {
            broken(w, "an exchange (%.*s) is in state %u, %llu ms beyond its deadline",
                   SW_SARG(x->request.target), x->state,
                   (unsigned long long)((now - x->deadline_ns) / SW_NS_PER_MS));
        }
        if (now > x->deadline_ns + 120 * SW_NS_PER_S) {
            broken(w, "an exchange (%.*s) sends for ever", SW_SARG(x->request.target));
        }
    }
}

void oracle_exchanges(struct world *w)
{
    worker_each(w, exchanges_of);
}

static void at_rest(struct world *w, struct sw_worker *k, struct sw_loop *loop)
{
    struct sw_loop_stats st;

    sw_loop_stats(loop, &st);
    if (k->conns.used != 0 || k->exchanges.used != 0 || k->pieces.used != 0 ||
        k->tunnels.used != 0) {
        broken(w, "at rest: %zu connections, %zu exchanges, %zu pieces, %zu tunnels", k->conns.used,
               k->exchanges.used, k->pieces.used, k->tunnels.used);
    }
    if (st.buffers != 0 || st.large != 0 || st.pieces != 0 ||
        st.streams != sw_upstream_idle(k->upstream)) {
        broken(w, "at rest: %u buffers, %u large, %u pieces, %u streams of which %u idle upstream",
               st.buffers, st.large, st.pieces, st.streams, sw_upstream_idle(k->upstream));
    }
}

static void held_fn(void *arg, const struct sw_instance *i)
{
    struct world *w = arg;
    uint32_t idle = 0;

    for (uint32_t k = 0; k < w->gw.worker_count; k++) {
        idle += sw_upstream_idle(w->gw.workers[k]->upstream);
    }
    if (i->in_flight != 0 || i->connections > idle) {
        broken(w, "at rest: %s has %u in flight, %u connections", i->name, i->in_flight,
               i->connections);
    }
}

void oracle_at_rest(struct world *w)
{
    worker_each(w, at_rest);
    if (w->gw.large.used != 0) {
        broken(w, "at rest: %zu bytes of large memory", (size_t)w->gw.large.used);
    }
    sw_apps_visit(w->gw.apps, held_fn, w);
}
