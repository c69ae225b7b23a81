/* serve.c - see serve.h. */
#include "serve.h"

/* ---- a client -------------------------------------------------------------------------------- */

static void client_connected(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct client *c = arg;
    size_t len = strlen(c->send), step = c->send_cut > 0 ? c->send_cut : len;

    if (err != SW_OK) {
        c->ended = true;
        c->end = err;
        return;
    }
    for (size_t at = 0; at < len; at += step) {
        enum sw_err sent =
            sw_stream_send(s, NULL, sw_slice_of(c->send + at, SW_MIN(step, len - at)));

        assert_int_equal(sent, SW_OK);
    }
    if (c->half_close) {
        sw_stream_shutdown(s);
    }
    if (!c->deaf) {
        sw_stream_read_start(s);
    }
}

static void client_recv(struct sw_stream *s, void *arg, struct sw_buf *buf, struct sw_slice bytes)
{
    struct client *c = arg;

    (void)s;
    (void)buf;
    assert_true(c->len + bytes.len <= CLIENT_BYTES);
    memcpy(c->got + c->len, bytes.ptr, bytes.len);
    c->len += bytes.len;
    c->got[c->len] = '\0';
}

static void client_end(struct sw_stream *s, void *arg, enum sw_err err)
{
    struct client *c = arg;

    c->ended = true;
    c->end = err;
    c->ended_ns = sw_loop_now_ns(sw_stream_loop(s));
}

static const struct sw_stream_events client_events = {client_connected, client_recv, client_end,
                                                      NULL};

struct client *client_new(struct serve *v, const char *send)
{
    struct client *c = calloc(1, sizeof(*c));
    enum sw_err err;

    assert_non_null(c);
    c->send = send;
    err = sw_stream_connect(v->outside, &v->addr, &client_events, c, &c->stream);
    if (err != SW_OK) { /* the simulated machine has no descriptor left */
        assert_int_equal(err, SW_E_NO_FILES);
        c->stream = NULL;
        c->ended = true;
        c->end = err;
    }
    return c;
}

struct client *client_ask(struct serve *v, const char *fmt, ...)
{
    struct client *c;
    char *text = NULL;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&text, fmt, ap);
    va_end(ap);
    assert_true(n >= 0);
    c = client_new(v, text);
    c->own = text;
    return c;
}

void client_free(struct client *c)
{
    if (c->stream != NULL) {
        sw_stream_close(c->stream);
    }
    free(c->own);
    free(c);
}

/* ---- the world ------------------------------------------------------------------------------- */

void serve_init(struct serve *v, uint64_t seed, const struct sw_sim_faults *faults,
                uint32_t buffers)
{
    struct sw_loop_options opt = {
        .streams_max = 256, .buffers_max = buffers, .large_max = 1, .large_bytes = 65536};
    enum sw_err err;

    memset(v, 0, sizeof(*v));
    v->sim = sw_sim_new(seed, faults);
    assert_non_null(v->sim);
    assert_int_equal(sw_loop_new_sim(v->sim, &opt, &v->loop), SW_OK);
    opt.buffers_max = 512;
    opt.pieces_max = 65536;
    assert_int_equal(sw_loop_new_sim(v->sim, &opt, &v->outside), SW_OK);
    err = sw_addr_parse(SW_S("127.0.0.1:9000"), false, &v->addr);
    assert_int_equal(err, SW_OK);
    assert_int_equal(sw_sim_listen(v->sim, &v->addr, 512, &v->fd), SW_OK);
    v->g = world_new();
    v->g->loop = v->loop;
    v->admin = sw_admin.open(v->g, v->loop, v->fd);
    assert_non_null(v->admin);
}

void serve_fini(struct serve *v)
{
    struct sw_admin *a = v->admin;

    for (size_t i = 0; i < ADMIN_PAGES_MAX && sw_list_empty(&a->list); i++) {
        assert_int_equal(a->pages[i].refs, 0);
    }
    sw_store_close(v->g->store);
    v->g->store = NULL;
    sw_admin.close(v->admin);
    sw_loop_free(v->outside);
    sw_loop_free(v->loop);
    sw_sim_free(v->sim);
    world_free(v->g);
}

void run_s(struct serve *v, double s)
{
    sw_sim_run(v->sim, sw_sim_now_ns(v->sim) + (uint64_t)(s * 1e9));
}

void expect(struct serve *v, const char *name, const char *send, size_t cut, const char *begins,
            const char *has)
{
    struct client *c = client_new(v, send);

    c->send_cut = cut;
    run_s(v, 1);
    if (strncmp(c->got, begins, strlen(begins)) != 0 ||
        (has != NULL && strstr(c->got, has) == NULL)) {
        fail_msg("%s: %s\n%s", name, begins, c->got);
    }
    client_free(c);
    run_s(v, 0.01);
}
