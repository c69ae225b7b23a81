/* admin/admin.c - the endpoints: what is asked for -> an answer; commands -> app/'s life. Those
 * about sessions are in sessions.c.
 *
 * Room       admin/. Main thread.
 * Flow       conn.c asks; gather.c and metrics.c, answers.c fill a page; conn.c sends it.
 *
 * Logs the commands it took, with names of apps and slots: never ids, tokens or addresses.
 */
#include <sys/mman.h>

#include "admin/admin_priv.h"

/* Of a page, so much stays resident between two readers. */
#define PAGE_KEPT_BYTES ((size_t)256 * 1024)

/* ---- refusals and small answers -------------------------------------------------------------- */

void sw_admin__fail(struct sw_admin_answer *ret_answer, unsigned status, const char *text,
                    const char *label)
{
    struct sw_out out = sw_out_init(ret_answer->text, sizeof(ret_answer->text));

    sw_admin__error_put(&out, text, label);
    SW_ASSERT(!out.overflowed); /* all texts are ours */
    sw_admin__answer_init(ret_answer, status, "application/json");
    ret_answer->text_len = out.len;
}

void sw_admin__answer_init(struct sw_admin_answer *answer, unsigned status, const char *type)
{
    answer->status = status;
    answer->type = type;
    answer->lines = NULL;
    answer->page = NULL;
    answer->large = (struct sw_slice){NULL, 0};
    answer->stream = false;
    answer->text_len = 0;
}

void sw_admin__refuse(enum sw_admin_verdict verdict, enum sw_admin_endpoint endpoint,
                      struct sw_admin_answer *ret_answer)
{
    switch (verdict) {
    case ADMIN_NO_TOKEN:
        sw_admin__fail(ret_answer, 401,
                       "the admin token is missing or wrong; send Authorization: Bearer TOKEN",
                       "token");
        ret_answer->lines = "WWW-Authenticate: Bearer realm=\"stateway admin\"\r\n";
        return;
    case ADMIN_NO_PLACE:
        sw_admin__fail(ret_answer, 404,
                       "there is nothing under this path; docs/admin.md lists what there is",
                       "not-found");
        return;
    case ADMIN_NO_METHOD:
        sw_admin__fail(ret_answer, 405, "this method is not served here; Allow tells which are",
                       "no-method");
        ret_answer->lines = sw_admin__allow_line(endpoint);
        return;
    case ADMIN_NO_GUARD:
        sw_admin__fail(
            ret_answer, 403,
            "commands need the header Stateway-Admin: 1 (or X-Stateway-Admin: 1), which a form of "
            "a foreign page cannot send",
            "guard");
        return;
    case ADMIN_CROSS:
        sw_admin__fail(ret_answer, 403, "a browser says that this command comes from another site",
                       "cross-site");
        return;
    case ADMIN_REBOUND:
        sw_admin__fail(ret_answer, 403,
                       "a browser knows this listener by a name that may not be its own; use its "
                       "address, or set "
                       "admin.token",
                       "host");
        return;
    case ADMIN_PROXIED:
        sw_admin__fail(ret_answer, 403,
                       "sessions are not shown through a gateway or proxy (Via) unless admin.token "
                       "is set",
                       "via");
        return;
    case ADMIN_ALLOWED:
    case ADMIN_VERDICT_COUNT:
        break;
    }
    SW_UNREACHABLE();
}

static void plain(struct sw_admin_answer *ret_answer, unsigned status, struct sw_out *out)
{
    SW_ASSERT(!out->overflowed);
    sw_admin__answer_init(ret_answer, status, "text/plain; charset=utf-8");
    ret_answer->text_len = out->len;
}

static void answer_healthz(struct sw_admin_answer *ret_answer)
{
    struct sw_out out = sw_out_init(ret_answer->text, sizeof(ret_answer->text));

    sw_out_lit(&out, "ok\n");
    plain(ret_answer, 200, &out);
}

/* The first app of which no instance is healthy, or NULL. */
static const struct sw_admin_app *app_missing(struct sw_admin *a)
{
    struct sw_admin_snapshot *s = a->snapshot;
    bool healthy[SW_APPS_MAX] = {false};

    sw_admin__gather_apps(a);
    for (size_t k = 0; k < s->instance_count; k++) {
        healthy[s->instances[k].app] |= s->instances[k].state == SW_INSTANCE_HEALTHY;
    }
    for (size_t i = 0; i < s->app_count; i++) {
        if (!healthy[i]) {
            return &s->apps[i];
        }
    }
    return NULL;
}

static void answer_readyz(struct sw_admin *a, struct sw_admin_answer *ret_answer)
{
    struct sw_out out = sw_out_init(ret_answer->text, sizeof(ret_answer->text));
    bool ready = false;

    if (sw_gateway_stopping(a->gateway)) {
        sw_out_lit(&out, "stopping: running exchanges are finished, new ones are not taken\n");
    } else if (sw_gateway_ready(a->gateway)) {
        sw_out_lit(&out, "ready\n");
        ready = true;
    } else {
        const struct sw_admin_app *app = app_missing(a);

        if (app != NULL) {
            sw_out_lit(&out, "not ready: app ");
            sw_out_slice(&out, app->name);
            sw_out_lit(&out, " has no healthy instance\n");
        } else {
            sw_out_lit(&out, "not ready: the gateway is still starting\n");
        }
    }
    plain(ret_answer, ready ? 200 : 503, &out);
}

/* ---- pages ----------------------------------------------------------------------------------- */

void sw_admin__page_unref(struct sw_admin_page *page, size_t page_bytes)
{
    SW_ASSERT(page->refs > 0);
    page->refs--;
    if (page->refs == 0 && page->len > PAGE_KEPT_BYTES) {
        (void)madvise(page->text + PAGE_KEPT_BYTES, page_bytes - PAGE_KEPT_BYTES, MADV_DONTNEED);
    }
}

static struct sw_admin_page *page_free(struct sw_admin *a)
{
    for (size_t i = 0; i < ADMIN_PAGES_MAX; i++) {
        if (a->pages[i].refs == 0) {
            return &a->pages[i];
        }
    }
    return NULL;
}

/* The newest of that kind, if it is new enough. */
static struct sw_admin_page *page_shared(struct sw_admin *a, enum sw_admin_kind kind)
{
    struct sw_admin_page *best = NULL;

    for (size_t i = 0; i < ADMIN_PAGES_MAX; i++) {
        struct sw_admin_page *p = &a->pages[i];

        if (p->refs > 0 && p->kind == kind &&
            sw_loop_now_ns(a->loop) - p->made_ns <= PAGE_SHARE_NS &&
            (best == NULL || p->made_ns > best->made_ns)) {
            best = p;
        }
    }
    return best;
}

/* False: the text did not fit. */
SW_MUST static bool page_make(struct sw_admin *a, struct sw_admin_page *p, enum sw_admin_kind kind)
{
    struct sw_out out = sw_out_init(p->text, a->page_bytes);

    switch (kind) {
    case PAGE_METRICS:
        sw_admin__gather_all(a);
        sw_admin__metrics_put(&out, a->snapshot);
        break;
    case PAGE_APPS:
        sw_admin__gather_apps(a);
        sw_admin__apps_put(&out, a->snapshot);
        break;
    case PAGE_STATUS:
        sw_admin__gather_status(a);
        sw_admin__status_put(&out, a->snapshot);
        break;
    case PAGE_KEYS:
        sw_admin__gather_keys(a);
        sw_admin__keys_put(&out, a->snapshot);
        break;
    case PAGE_KIND_COUNT:
        SW_UNREACHABLE();
    }
    p->kind = kind;
    p->len = out.len;
    p->made_ns = sw_loop_now_ns(a->loop);
    return !out.overflowed;
}

static void answer_page(struct sw_admin *a, enum sw_admin_kind kind,
                        struct sw_admin_answer *ret_answer)
{
    struct sw_admin_page *p = page_free(a);

    if (p == NULL) {
        p = page_shared(a, kind);
        if (p == NULL) {
            sw_admin__fail(ret_answer, 503, "too many slow readers hold the memory for answers",
                           "overloaded");
            ret_answer->lines = "Retry-After: 1\r\n";
            return;
        }
    } else if (!page_make(a, p, kind)) {
        sw_admin__fail(ret_answer, 500, "the answer is larger than the memory set aside for it",
                       "limit");
        return;
    }
    p->refs++;
    sw_admin__answer_init(ret_answer, 200,
                          kind == PAGE_METRICS ? "text/plain; version=0.0.4; charset=utf-8"
                                               : "application/json");
    ret_answer->page = p;
}

/* ---- commands -------------------------------------------------------------------------------- */

/* Errors of sw_life_*, as this room tells them: their own words are about states. */
static void command_failed(enum sw_err err, bool is_app, struct sw_admin_answer *ret_answer)
{
    switch ((int)err) {
    case SW_E_NOT_FOUND:
        sw_admin__fail(ret_answer, 404,
                       is_app ? "there is no such app" : "there is no such instance",
                       sw_err_label(err));
        return;
    case SW_E_CONFLICT:
        sw_admin__fail(ret_answer, 409, "this is already under way, or the gateway is stopping",
                       sw_err_label(err));
        return;
    case SW_E_UNSUPPORTED:
        sw_admin__fail(
            ret_answer, 501,
            "not for this app: servers are not rolled or killed, processes are not undrained",
            sw_err_label(err));
        return;
    default:
        sw_admin__fail(ret_answer, sw_err_status(err) >= 500 ? sw_err_status(err) : 500,
                       sw_err_text(err), sw_err_label(err));
        return;
    }
}

static void answer_command(struct sw_admin *a, enum sw_admin_endpoint endpoint,
                           struct sw_slice name, struct sw_admin_answer *ret_answer)
{
    typedef enum sw_err command_fn(struct sw_life * l, struct sw_slice name);
    static const struct {
        const char *word;
        command_fn *fn;
    } commands[ADMIN_ENDPOINT_COUNT] = {
        [ADMIN_ROLL] = {"roll", sw_life_roll},
        [ADMIN_DRAIN] = {"drain", sw_life_drain},
        [ADMIN_UNDRAIN] = {"undrain", sw_life_undrain},
        [ADMIN_KILL] = {"kill", sw_life_kill},
    };
    struct sw_out out = sw_out_init(ret_answer->text, sizeof(ret_answer->text));
    enum sw_err err;

    SW_ASSERT(commands[endpoint].fn != NULL);
    err = commands[endpoint].fn(sw_gateway_life(a->gateway), name);
    if (err != SW_OK) {
        command_failed(err, endpoint == ADMIN_ROLL, ret_answer);
        return;
    }
    sw_log(SW_LOG_INFO, "admin: %s %.*s", commands[endpoint].word, SW_SARG(name));
    /* The name was routed: small letters, digits, hyphens, one slash. */
    sw_out_lit(&out, "{\"accepted\":\"");
    sw_out_cstr(&out, commands[endpoint].word);
    sw_out_cstr(&out, endpoint == ADMIN_ROLL ? "\",\"app\":\"" : "\",\"instance\":\"");
    sw_out_slice(&out, name);
    sw_out_lit(&out, "\"}\n");
    SW_ASSERT(!out.overflowed);
    sw_admin__answer_init(ret_answer, 202, "application/json");
    ret_answer->text_len = out.len;
}

void sw_admin__answer(struct sw_admin *a, enum sw_admin_endpoint endpoint, struct sw_slice name,
                      struct sw_admin_answer *ret_answer)
{
    switch (endpoint) {
    case ADMIN_HEALTHZ:
        answer_healthz(ret_answer);
        return;
    case ADMIN_READYZ:
        answer_readyz(a, ret_answer);
        return;
    case ADMIN_METRICS:
        answer_page(a, PAGE_METRICS, ret_answer);
        return;
    case ADMIN_APPS:
        answer_page(a, PAGE_APPS, ret_answer);
        return;
    case ADMIN_STATUS:
        answer_page(a, PAGE_STATUS, ret_answer);
        return;
    case ADMIN_KEYS:
        answer_page(a, PAGE_KEYS, ret_answer);
        return;
    case ADMIN_ROLL:
    case ADMIN_DRAIN:
    case ADMIN_UNDRAIN:
    case ADMIN_KILL:
        answer_command(a, endpoint, name, ret_answer);
        return;
    case ADMIN_SESSIONS: /* sessions.c */
    case ADMIN_SESSION:
    case ADMIN_EXPORT:
    case ADMIN_IMPORT:
    case ADMIN_SUBJECT:
    case ADMIN_TOKEN: /* revoke.c */
    case ADMIN_SEALED:
    case ADMIN_PIN:
    case ADMIN_NOWHERE:
    case ADMIN_ENDPOINT_COUNT:
        break;
    }
    SW_UNREACHABLE();
}

/* ---- life ------------------------------------------------------------------------------------ */

static void admin_close(void *admin)
{
    struct sw_admin *a = admin;

    if (a == NULL) {
        return;
    }
    SW_ASSERT(a->magic == ADMIN_MAGIC);
    if (a->listener != NULL) {
        sw_listener_close(a->listener);
    }
    while (!sw_list_empty(&a->list)) {
        sw_admin__conn_close(SW_CONTAINER(a->list.next, struct sw_admin_conn, link));
    }
    sw_admin__gone_drop(a);
    SW_ASSERT(a->large.used == 0);
    if (a->pages[0].text != NULL) {
        munmap(a->pages[0].text, a->page_bytes * ADMIN_PAGES_MAX);
    }
    sw_admin__snapshot_fini(a);
    sw_pool_fini(&a->conns);
    a->magic = 0;
    free(a);
}

/* The largest value that any route makes, and how long its states live. */
static void limits_of(struct sw_admin *a, const struct sw_config *config)
{
    for (size_t i = 0; i < config->route_count; i++) {
        const struct sw_config_route *r = &config->routes[i];

        if (r->placement == SW_PLACE_SESSION || r->moved_from == SW_PLACE_SESSION ||
            (r->placement == SW_PLACE_SEALED && r->sealed.oversize == SW_OVERSIZE_SPILL)) {
            a->state_bytes_max = SW_MAX(a->state_bytes_max, (size_t)r->session.max_bytes);
            a->idle_s = SW_MAX(a->idle_s, r->session.idle_s);
            a->absolute_s = SW_MAX(a->absolute_s, r->session.absolute_s);
        }
        if (r->idempotency.mode != SW_IDEM_OFF) { /* a held answer has a head, too */
            a->value_bytes_max =
                SW_MAX(a->value_bytes_max,
                       (size_t)r->idempotency.answer_bytes_max + config->limits.head_bytes + 1024);
        }
    }
    a->value_bytes_max = SW_MAX(a->value_bytes_max, a->state_bytes_max);
}

SW_MUST static enum sw_err admin_start(struct sw_admin *a, int fd)
{
    char *text;

    if (!sw_pool_init(&a->conns, sizeof(struct sw_admin_conn), SW_ADMIN_CONNECTIONS_MAX) ||
        !sw_admin__snapshot_init(a)) {
        return SW_E_NO_MEMORY;
    }
    a->page_bytes = sw_admin__page_bytes(a->snapshot->app_count, a->snapshot->loop_max,
                                         a->snapshot->instance_max);
    a->page_bytes = (a->page_bytes + 4095) & ~(size_t)4095;
    text = mmap(NULL, a->page_bytes * ADMIN_PAGES_MAX, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (text == MAP_FAILED) {
        return SW_E_NO_MEMORY;
    }
    for (size_t i = 0; i < ADMIN_PAGES_MAX; i++) {
        a->pages[i].text = text + i * a->page_bytes;
    }
    return sw_listener_open(a->loop, fd, sw_admin__accept, a, &a->listener);
}

static void *admin_open(struct sw_gateway *g, struct sw_loop *loop, int fd)
{
    struct sw_admin *a = calloc(1, sizeof(*a));
    enum sw_err err = SW_E_NO_MEMORY;

    if (a != NULL) {
        a->magic = ADMIN_MAGIC;
        a->gateway = g;
        a->loop = loop;
        a->opened_ns = sw_loop_now_ns(loop);
        sw_list_init(&a->list);
        sw_list_init(&a->gone);
        sw_budget_init(&a->large, ADMIN_LARGE_BYTES_MAX);
        limits_of(a, sw_gateway_config(g));
        sw_admin__lives_of(a, sw_gateway_config(g));
        err = admin_start(a, fd);
    }
    if (err != SW_OK) {
        sw_log(SW_LOG_ERROR, "admin: cannot serve: %s", sw_err_text(err));
        admin_close(a);
        return NULL;
    }
    return a;
}

const struct sw_admin_ops sw_admin = {.open = admin_open, .close = admin_close};
