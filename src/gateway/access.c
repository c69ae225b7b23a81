/* gateway/access.c - one line for each exchange, written by a thread of its own.
 *
 * A worker puts a binary record into its own ring (one writer, one reader, no lock) and goes on;
 * the log thread formats and writes. A full ring drops the record and counts it: a slow disk or a
 * slow pipe must not slow an answer. No ids: a visitor appears as a keyed hash; queries are left
 * out, since they carry tokens often enough.
 */
#include "gateway/gateway_priv.h"

#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define RING_BYTES    (1u << 20) /* a power of two */
#define PATH_MAX_LOG  512u
#define TEXT_MAX_LOG  64u
#define OUT_BYTES     (64u * 1024u)
#define LINE_MAX_LOG  4096u
#define WRITE_WAIT_MS 1000

struct record {
    uint32_t bytes; /* of record and text, rounded to 8 */
    uint16_t status, path_len;
    uint8_t method_len, peer_len, placement, verdict;
    uint8_t has_route, minor, tries, tunnel;
    uint16_t err, instance_len;
    uint32_t route_line;
    uint64_t unix_ms;
    uint64_t bytes_in, bytes_out, total_ns, app_ns, commit_ns;
    uint32_t app;
    char visitor[20];
    /* text: method, peer, instance, path */
};

struct ring {
    _Atomic uint64_t head __attribute__((aligned(64))); /* written so far */
    _Atomic uint64_t tail __attribute__((aligned(64))); /* read so far */
    _Atomic uint64_t dropped;
    char *bytes;
};

struct sw_access {
    const struct sw_config *config;
    int fd, wake;
    bool json, own_fd;
    size_t count;
    struct ring *rings;
    _Atomic bool sleeping, ending;
    _Atomic uint64_t unwritten; /* records that came out of a ring and found no reader */
    pthread_t thread;
    char out[OUT_BYTES];
};

/* ---- the worker's side ----------------------------------------------------------------------- */

static void ring_put(struct ring *r, uint64_t at, const void *bytes, size_t len)
{
    size_t from = (size_t)(at & (RING_BYTES - 1)), first = SW_MIN(len, RING_BYTES - from);

    if (len == 0) {
        return;
    }
    memcpy(r->bytes + from, bytes, first);
    if (len > first) {
        memcpy(r->bytes, (const char *)bytes + first, len - first);
    }
}

static void ring_get(const struct ring *r, uint64_t at, void *bytes, size_t len)
{
    size_t from = (size_t)(at & (RING_BYTES - 1)), first = SW_MIN(len, RING_BYTES - from);

    memcpy(bytes, r->bytes + from, first);
    if (len > first) {
        memcpy((char *)bytes + first, r->bytes, len - first);
    }
}

/* The record is put, then `sleeping` is looked at; the thread sets `sleeping`, then looks at the
 * rings. All four are sequentially consistent, or both might miss each other and the line wait for
 * the next. */
static void wake(struct sw_access *a)
{
    if (atomic_load(&a->sleeping) && atomic_exchange(&a->sleeping, false)) {
        uint64_t one = 1;
        ssize_t ignored = write(a->wake, &one, sizeof(one));

        (void)ignored;
    }
}

void sw_access__exchange(struct sw_access *a, const struct sw_exchange *x, uint64_t now_ns)
{
    struct ring *ring = &a->rings[x->worker->index];
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    struct sw_slice method = sw_slice_head(x->request.method_name, 32);
    struct sw_slice path = sw_slice_head(x->request.path, PATH_MAX_LOG);
    struct sw_slice peer = sw_slice_head(x->peer, TEXT_MAX_LOG);
    struct sw_slice instance =
        x->ask.instance == NULL ? (struct sw_slice){NULL, 0} : sw_slice_cstr(x->ask.instance->name);
    size_t text = method.len + peer.len + instance.len + path.len;
    struct record r = {
        .bytes = (uint32_t)((sizeof(r) + text + 7) & ~(size_t)7),
        .status = (uint16_t)x->status,
        .path_len = (uint16_t)path.len,
        .method_len = (uint8_t)method.len,
        .peer_len = (uint8_t)peer.len,
        .placement = (uint8_t)(x->routed.route == NULL ? 0 : x->routed.route->placement),
        .verdict = (uint8_t)x->ask.verdict,
        .has_route = x->routed.route != NULL,
        .minor = x->request.minor,
        .tries = (uint8_t)SW_MIN(x->attempts + x->reruns + 1, 255u),
        .tunnel = x->upgraded,
        .err = (uint16_t)x->err,
        .instance_len = (uint16_t)instance.len,
        .route_line = x->routed.route == NULL ? 0 : x->routed.route->line,
        .unix_ms = (uint64_t)sw_loop_now_unix_ms(x->worker->loop),
        .bytes_in = x->bytes_in,
        .bytes_out = x->bytes_out,
        .total_ns = now_ns > x->begin_ns ? now_ns - x->begin_ns : 0,
        .app_ns = x->app_ns,
        .commit_ns = x->ask.commit_ns,
        .app = x->routed.route == NULL ? SW_APPS_MAX : x->routed.route->app,
    };
    uint64_t at = head;

    if (RING_BYTES - (head - tail) < r.bytes) {
        sw_count(&ring->dropped, 1);
        return;
    }
    memcpy(r.visitor, x->ask.visitor, sizeof(x->ask.visitor));
    ring_put(ring, at, &r, sizeof(r));
    at += sizeof(r);
    ring_put(ring, at, method.ptr, method.len);
    at += method.len;
    ring_put(ring, at, peer.ptr, peer.len);
    at += peer.len;
    ring_put(ring, at, instance.ptr, instance.len);
    at += instance.len;
    ring_put(ring, at, path.ptr, path.len);
    atomic_store(&ring->head, head + r.bytes);
    wake(a);
}

uint64_t sw_access_dropped(const struct sw_access *a)
{
    uint64_t sum = atomic_load_explicit(&a->unwritten, memory_order_relaxed);

    for (size_t i = 0; i < a->count; i++) {
        sum += atomic_load_explicit(&a->rings[i].dropped, memory_order_relaxed);
    }
    return sum;
}

/* ---- the log thread -------------------------------------------------------------------------- */

struct texts {
    struct sw_slice method, peer, instance, path;
    char memory[32 + TEXT_MAX_LOG + 80 + PATH_MAX_LOG];
};

static void put_time(struct sw_out *out, uint64_t unix_ms)
{
    time_t s = (time_t)(unix_ms / 1000);
    struct tm tm;

    gmtime_r(&s, &tm);
    sw_out_printf(out, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ", tm.tm_year + 1900, tm.tm_mon + 1,
                  tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (unsigned)(unix_ms % 1000));
}

static const char *app_name(const struct sw_access *a, const struct record *r)
{
    return r->has_route ? a->config->apps[r->app].name.ptr : "-";
}

static void put_text(const struct sw_access *a, struct sw_out *out, const struct record *r,
                     const struct texts *t)
{
    put_time(out, r->unix_ms);
    sw_out_printf(out, " %.*s \"%.*s %.*s HTTP/1.%u\" %u in=%llu out=%llu app=%s", SW_SARG(t->peer),
                  SW_SARG(t->method), SW_SARG(t->path), r->minor, r->status,
                  (unsigned long long)r->bytes_in, (unsigned long long)r->bytes_out,
                  app_name(a, r));
    if (r->has_route) {
        sw_out_printf(out, " instance=%.*s placement=%s verdict=%s",
                      t->instance.len > 0 ? (int)t->instance.len : 1,
                      t->instance.len > 0 ? t->instance.ptr : "-",
                      sw_placement_of((enum sw_placement_kind)r->placement)->name,
                      sw_verdict_name((enum sw_verdict)r->verdict));
    }
    if (r->visitor[0] != '\0') {
        sw_out_printf(out, " visitor=%s", r->visitor);
    }
    sw_out_printf(out, " total=%.3fms app=%.3fms", (double)r->total_ns / 1e6,
                  (double)r->app_ns / 1e6);
    if (r->commit_ns > 0) {
        sw_out_printf(out, " commit=%.3fms", (double)r->commit_ns / 1e6);
    }
    sw_out_printf(out, " tries=%u%s", r->tries, r->tunnel ? " tunnel" : "");
    if (r->err != SW_OK) {
        sw_out_printf(out, " error=%s", sw_err_label((enum sw_err)r->err));
    }
    sw_out_char(out, '\n');
}

static void put_json(const struct sw_access *a, struct sw_out *out, const struct record *r,
                     const struct texts *t)
{
    sw_out_lit(out, "{\"time\":\"");
    put_time(out, r->unix_ms);
    sw_out_lit(out, "\",\"peer\":");
    sw_json_quote(out, t->peer);
    sw_out_lit(out, ",\"method\":");
    sw_json_quote(out, t->method);
    sw_out_lit(out, ",\"path\":");
    sw_json_quote(out, t->path);
    sw_out_printf(out, ",\"status\":%u,\"bytes_in\":%llu,\"bytes_out\":%llu,\"app\":\"%s\"",
                  r->status, (unsigned long long)r->bytes_in, (unsigned long long)r->bytes_out,
                  app_name(a, r));
    if (r->has_route) {
        sw_out_lit(out, ",\"instance\":");
        sw_json_quote(out, t->instance);
        sw_out_printf(out, ",\"placement\":\"%s\",\"verdict\":\"%s\"",
                      sw_placement_of((enum sw_placement_kind)r->placement)->name,
                      sw_verdict_name((enum sw_verdict)r->verdict));
    }
    if (r->visitor[0] != '\0') {
        sw_out_printf(out, ",\"visitor\":\"%s\"", r->visitor);
    }
    sw_out_printf(out, ",\"total_ms\":%.3f,\"app_ms\":%.3f,\"commit_ms\":%.3f,\"tries\":%u",
                  (double)r->total_ns / 1e6, (double)r->app_ns / 1e6, (double)r->commit_ns / 1e6,
                  r->tries);
    if (r->err != SW_OK) {
        sw_out_printf(out, ",\"error\":\"%s\"", sw_err_label((enum sw_err)r->err));
    }
    sw_out_lit(out, "}\n");
}

/* A pipe that polls writable takes PIPE_BUF bytes without blocking; a reader that takes nothing for
 * a second loses what is in hand, so that the end of the process never waits for it. False: lost.
 */
static bool write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        ssize_t n;

        if (poll(&p, 1, WRITE_WAIT_MS) != 1) {
            return false;
        }
        n = write(fd, bytes, SW_MIN(len, (size_t)PIPE_BUF));
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
            continue;
        }
        if (n <= 0) {
            return false; /* a log that cannot be written is no reason to stop serving */
        }
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

static void flush_out(struct sw_access *a, size_t len, size_t records)
{
    if (!write_all(a->fd, a->out, len)) {
        atomic_fetch_add_explicit(&a->unwritten, records, memory_order_relaxed);
    }
}

/* Everything that is in the rings now. False: there was nothing. */
static bool drain(struct sw_access *a)
{
    struct sw_out out = sw_out_init(a->out, sizeof(a->out));
    size_t records = 0;
    bool any = false;

    for (size_t i = 0; i < a->count; i++) {
        struct ring *ring = &a->rings[i];
        uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
        uint64_t head = atomic_load(&ring->head); /* see wake */

        while (tail < head) {
            struct record r;
            struct texts t;
            char *at = t.memory;
            size_t text;

            ring_get(ring, tail, &r, sizeof(r));
            text = (size_t)r.method_len + r.peer_len + r.instance_len + r.path_len;
            SW_ASSERT(text <= sizeof(t.memory));
            ring_get(ring, tail + sizeof(r), t.memory, text);
            t.method = sw_slice_of(at, r.method_len);
            t.peer = sw_slice_of(at += r.method_len, r.peer_len);
            t.instance = sw_slice_of(at += r.peer_len, r.instance_len);
            t.path = sw_slice_of(at + r.instance_len, r.path_len);
            if (sizeof(a->out) - out.len < LINE_MAX_LOG) {
                flush_out(a, out.len, records);
                out = sw_out_init(a->out, sizeof(a->out));
                records = 0;
            }
            (a->json ? put_json : put_text)(a, &out, &r, &t);
            records++;
            tail += r.bytes;
            any = true;
        }
        atomic_store_explicit(&ring->tail, tail, memory_order_release);
    }
    flush_out(a, out.len, records);
    return any;
}

static void *access_thread(void *arg)
{
    struct sw_access *a = arg;

    for (;;) {
        uint64_t count;
        ssize_t ignored;

        if (drain(a) && !(atomic_load(&a->ending) && atomic_load(&a->unwritten) > 0)) {
            continue;
        }
        if (atomic_load(&a->ending)) {
            return NULL;
        }
        atomic_store(&a->sleeping, true);
        if (drain(a)) { /* something came between */
            atomic_store(&a->sleeping, false);
            continue;
        }
        ignored = read(a->wake, &count, sizeof(count));
        (void)ignored;
    }
}

enum sw_err sw_access_open(const struct sw_config *config, size_t workers,
                           struct sw_access **ret_access)
{
    struct sw_slice where = config->access_log;
    struct sw_access *a;

    *ret_access = NULL;
    if (sw_slice_eq(where, SW_S("off"))) {
        return SW_OK;
    }
    a = calloc(1, sizeof(*a));
    if (a == NULL) {
        return SW_E_NO_MEMORY;
    }
    a->config = config;
    a->json = config->log_json;
    a->count = workers;
    a->fd = STDOUT_FILENO;
    if (!sw_slice_eq(where, SW_S("stdout"))) {
        a->own_fd = true;
        a->fd = open(where.ptr, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    }
    a->wake = eventfd(0, EFD_CLOEXEC);
    a->rings = aligned_alloc(64, (workers * sizeof(*a->rings) + 63) / 64 * 64);
    if (a->fd < 0 || a->wake < 0 || a->rings == NULL) {
        enum sw_err err = a->fd < 0 ? SW_E_PERMISSION : SW_E_NO_MEMORY;

        sw_access_close(a);
        return err;
    }
    memset(a->rings, 0, workers * sizeof(*a->rings));
    for (size_t i = 0; i < workers; i++) {
        a->rings[i].bytes = malloc(RING_BYTES);
        SW_ASSERT(a->rings[i].bytes != NULL); /* at start, where failing may be fatal */
    }
    if (pthread_create(&a->thread, NULL, access_thread, a) != 0) {
        a->thread = 0;
        sw_access_close(a);
        return SW_E_NO_MEMORY;
    }
    *ret_access = a;
    return SW_OK;
}

void sw_access_close(struct sw_access *a)
{
    uint64_t one = 1;
    ssize_t ignored;

    if (a == NULL) {
        return;
    }
    if (a->thread != 0) {
        atomic_store(&a->ending, true);
        ignored = write(a->wake, &one, sizeof(one));
        (void)ignored;
        pthread_join(a->thread, NULL);
    }
    if (a->rings != NULL) {
        for (size_t i = 0; i < a->count; i++) {
            free(a->rings[i].bytes);
        }
        free(a->rings);
    }
    if (a->wake >= 0) {
        close(a->wake);
    }
    if (a->own_fd && a->fd >= 0) {
        close(a->fd);
    }
    free(a);
}
