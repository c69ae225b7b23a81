/* keysets/: the thread with real files and a real server; workers read and want meanwhile. Also
 * meant for -fsanitize=thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "keysets/keysets.h"
#include "world.h"

static struct world world;

static const struct sw_keyset_times quick = {
    .fresh_ms = 60,
    .fresh_ms_min = 40,
    .fresh_ms_max = 80,
    .file_ms = 20,
    .again_ms = 100,
    .fetch_ms = 400,
    .retry_ms = 20,
    .retry_ms_max = 80,
    .keep_ms = 600,
};
static const struct sw_jwks_rules all = {.algs = SW_JOSE_PUBLIC | SW_JOSE_SECRETS};
static const struct sw_jwks_rules public_only = {.algs = SW_JOSE_PUBLIC};

static void nap(unsigned ms)
{
    const struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};

    nanosleep(&t, NULL);
}

/* ---- what is logged ---------------------------------------------------------------------------
 */

struct log {
    pthread_mutex_t lock;
    char text[8192];
    size_t len;
    unsigned lines;
};

static void on_tell(void *arg, enum sw_log_level level, const char *text)
{
    struct log *log = arg;

    (void)level;
    pthread_mutex_lock(&log->lock);
    log->len += (size_t)snprintf(log->text + log->len, sizeof(log->text) - log->len, "%s\n", text);
    assert_true(log->len < sizeof(log->text));
    log->lines++;
    pthread_mutex_unlock(&log->lock);
}

static bool logged(struct log *log, const char *text)
{
    bool found;

    pthread_mutex_lock(&log->lock);
    found = strstr(log->text, text) != NULL;
    pthread_mutex_unlock(&log->lock);
    return found;
}

static unsigned lines(struct log *log)
{
    unsigned n;

    pthread_mutex_lock(&log->lock);
    n = log->lines;
    pthread_mutex_unlock(&log->lock);
    return n;
}

static struct sw_keysets *room_new(struct log *log)
{
    const struct sw_keysets_options opt = {.tell = on_tell, .arg = log, .times = quick};
    struct sw_keysets *k;

    *log = (struct log){.lock = PTHREAD_MUTEX_INITIALIZER};
    assert_int_equal(sw_keysets_new(&opt, &k), SW_OK);
    return k;
}

#define UNTIL(cond)                                                                                \
    do {                                                                                           \
        unsigned tries_ = 0;                                                                       \
        while (!(cond)) {                                                                          \
            if (++tries_ > 3000) {                                                                 \
                fail_msg("not in time: %s", #cond);                                                \
            }                                                                                      \
            nap(5);                                                                                \
        }                                                                                          \
    } while (0)

static bool verifies(struct sw_keyset_view *v, size_t key)
{
    const struct sw_jwks *set = sw_keyset_view_get(v);

    return set != NULL && world_verify(&world, key, true, set) == SW_OK;
}

/* ---- files ------------------------------------------------------------------------------------
 */

struct folder {
    char path[64], file[80], aside[80];
};

static void folder_make(struct folder *f)
{
    (void)snprintf(f->path, sizeof(f->path), "/tmp/sw-keysets-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    (void)snprintf(f->file, sizeof(f->file), "%s/keys.json", f->path);
    (void)snprintf(f->aside, sizeof(f->aside), "%s/aside", f->path);
}

static void folder_remove(const struct folder *f)
{
    unlink(f->file);
    unlink(f->aside);
    assert_int_equal(rmdir(f->path), 0);
}

static void write_to(const char *path, struct sw_slice text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(text.ptr, 1, text.len, file), text.len);
    assert_int_equal(fclose(file), 0);
}

static void replace(const struct folder *f, struct sw_slice text)
{
    write_to(f->aside, text);
    assert_int_equal(rename(f->aside, f->file), 0);
}

static void a_file_is_watched(void **state)
{
    struct sw_keyset_view view = {0};
    struct folder f;
    struct log log;
    const char *why = NULL;
    struct sw_keysets *k = room_new(&log);
    struct sw_keyset *again;
    struct sw_slice whole;

    (void)state;
    folder_make(&f);
    write_to(f.file, world_set(&world, SW_BIT(0)));
    assert_int_equal(sw_keysets_add(k, sw_slice_cstr(f.file), false, &all, &view.keyset), SW_OK);
    assert_int_equal(sw_keysets_add(k, sw_slice_cstr(f.file), false, &all, &again), SW_OK);
    assert_ptr_equal(again, view.keyset);
    assert_int_equal(sw_keysets_add(k, sw_slice_cstr(f.file), false, &public_only, &again), SW_OK);
    assert_ptr_not_equal(again, view.keyset);
    assert_int_equal(sw_keysets_count(k), 2);
    assert_int_equal(sw_keysets_ready(k, 5000, &why), SW_OK);
    assert_true(verifies(&view, 0)); /* at once: ready has waited */

    replace(&f, world_set(&world, SW_BIT(1))); /* rename: another file of this name */
    UNTIL(verifies(&view, 1));
    assert_true(verifies(&view, 0)); /* kept */
    UNTIL(!verifies(&view, 0));

    whole = world_set(&world, SW_BIT(1) | SW_BIT(2));
    write_to(f.file, sw_slice_head(whole, whole.len / 2)); /* half written, in place */
    UNTIL(logged(&log, "the keys that were read before stand"));
    assert_true(verifies(&view, 1));
    assert_false(verifies(&view, 2));
    write_to(f.file, whole);
    UNTIL(verifies(&view, 2));

    assert_int_equal(unlink(f.file), 0);
    UNTIL(logged(&log, "No such file"));
    nap(100);
    assert_true(verifies(&view, 1) && verifies(&view, 2));
    replace(&f, world_set(&world, SW_BIT(3)));
    UNTIL(verifies(&view, 3));
    UNTIL(lines(&log) == 2 * 6); /* of both: read, changed, failing, again, failing, again */
    nap(100);
    assert_int_equal(lines(&log), 2 * 6);
    sw_keyset_view_fini(&view);
    sw_keysets_free(k);
    folder_remove(&f);
}

enum kind { MISSING, FOLDER, FIFO, LARGE, GARBAGE, CLOSED };

static void a_file_that_cannot_be_read_is_an_error_of_the_start(void **state)
{
    static const struct {
        enum kind kind;
        const char *why;
    } rows[] = {
        {MISSING, "No such file or directory"},
        {FOLDER, "no regular file"},
        {FIFO, "no regular file"},
        {LARGE, "longer than the limit"},
        {GARBAGE, "not a well-formed JWK set"},
        {CLOSED, "Permission denied"},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_keyset *ks;
        struct folder f;
        struct log log;
        const char *why = "";
        struct sw_keysets *k = room_new(&log);

        folder_make(&f);
        if (rows[i].kind == CLOSED && geteuid() == 0) {
            sw_keysets_free(k); /* nothing is closed to root */
            folder_remove(&f);
            continue;
        }
        if (rows[i].kind == FIFO) {
            assert_int_equal(mkfifo(f.file, 0600), 0);
        } else if (rows[i].kind == LARGE) {
            char *text = malloc(SW_JWKS_BYTES_MAX + 1);

            assert_non_null(text);
            memset(text, ' ', SW_JWKS_BYTES_MAX + 1);
            memcpy(text, "{\"keys\":[]}", 11);
            write_to(f.file, sw_slice_of(text, SW_JWKS_BYTES_MAX + 1));
            free(text);
        } else if (rows[i].kind == GARBAGE || rows[i].kind == CLOSED) {
            write_to(f.file, SW_S("keys!"));
            assert_int_equal(chmod(f.file, rows[i].kind == CLOSED ? 0 : 0600), 0);
        }
        assert_int_equal(sw_keysets_add(k, sw_slice_cstr(rows[i].kind == FOLDER ? f.path : f.file),
                                        false, &all, &ks),
                         SW_OK);
        if (sw_keysets_ready(k, 5000, &why) != SW_E_SYNTAX || strstr(why, rows[i].why) == NULL ||
            strstr(why, f.path) == NULL) {
            fail_msg("%s: %s", rows[i].why, why);
        }
        assert_int_equal(lines(&log), 0); /* whoever asked for it says it */
        if (rows[i].kind == MISSING) {
            write_to(f.file, world_set(&world, SW_BIT(0)));
            UNTIL(sw_keysets_ready(k, 5000, &why) == SW_OK);
        }
        sw_keysets_free(k);
        folder_remove(&f);
    }
}

/* ---- URLs of this machine ---------------------------------------------------------------------
 */

struct server {
    int fd;
    uint16_t port;
    pthread_t thread;
    pthread_mutex_t lock;
    char answer[8192]; /* head and body */
    unsigned delay_ms;
    bool stop;
    unsigned requests;
};

static void *serve(void *arg)
{
    struct server *s = arg;

    for (;;) {
        int fd = accept(s->fd, NULL, NULL);
        char request[4096], answer[sizeof(s->answer)];
        unsigned delay_ms;
        size_t len;
        bool stop;

        pthread_mutex_lock(&s->lock);
        stop = s->stop;
        delay_ms = s->delay_ms;
        len = strlen(s->answer);
        memcpy(answer, s->answer, len);
        s->requests += stop ? 0 : 1;
        pthread_mutex_unlock(&s->lock);
        if (stop || fd < 0) {
            close(fd);
            return NULL;
        }
        if (recv(fd, request, sizeof(request), 0) > 0) { /* small: it comes in one piece */
            nap(delay_ms);
            (void)!send(fd, answer, len, MSG_NOSIGNAL);
        }
        close(fd);
    }
}

static void answers(struct server *s, const char *head, struct sw_slice body, unsigned delay_ms)
{
    pthread_mutex_lock(&s->lock);
    (void)snprintf(s->answer, sizeof(s->answer), "HTTP/1.1 %s\r\nConnection: close\r\n\r\n%.*s",
                   head, SW_SARG(body));
    s->delay_ms = delay_ms;
    pthread_mutex_unlock(&s->lock);
}

static unsigned requests(struct server *s)
{
    unsigned n;

    pthread_mutex_lock(&s->lock);
    n = s->requests;
    pthread_mutex_unlock(&s->lock);
    return n;
}

static void server_open(struct server *s)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(in);

    *s = (struct server){.lock = PTHREAD_MUTEX_INITIALIZER};
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s->fd >= 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(s->fd, 64), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&in, &len), 0);
    s->port = ntohs(in.sin_port);
    answers(s, "500 No", SW_S(""), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_close(struct server *s)
{
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons(s->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_mutex_unlock(&s->lock);
    assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    pthread_join(s->thread, NULL);
    close(fd);
    close(s->fd);
}

static struct sw_keyset *add_url(struct sw_keysets *k, const char *host, uint16_t port)
{
    char url[128];
    struct sw_keyset *ks;

    (void)snprintf(url, sizeof(url), "http://%s:%u/keys?secret", host, port);
    assert_int_equal(sw_keysets_add(k, sw_slice_cstr(url), true, &public_only, &ks), SW_OK);
    return ks;
}

static void what_goes_wrong_with_a_url(void **state)
{
    static const struct {
        const char *head, *body, *why;
        unsigned delay_ms;
    } rows[] = {
        {"500 No", "", "status 500", 0},
        {"404 No", "{\"keys\":[]}", "status 404", 0},
        {"204 No Content", "", "status 204", 0},
        {"200 OK", "<html>", "not a well-formed JWK set", 0},
        {"200 OK", "{\"keys\":[]}", "no key of the key set can be used", 0},
        {"200 OK\r\nContent-Length: 262145", "{\"keys\":[", "longer than the limit", 0},
        {"200 OK\r\nContent-Length: 100", "{\"keys\":[", "transfer closed", 0},
        {"302 Found\r\nLocation: http://127.0.0.1:1/", "", "rotocol", 0},
        {"302 Found\r\nLocation: file:///etc/passwd", "", "rotocol", 0},
        {"200 OK", "late", "timed out", 1000},
        {"what is this", "", "", 0},
    };

    (void)state;
    for (size_t i = 0; i < SW_COUNTOF(rows); i++) {
        struct sw_keyset_view view = {0};
        struct server s;
        struct log log;
        const char *why;
        struct sw_keysets *k = room_new(&log);
        struct sw_keyset_stats stats;

        server_open(&s);
        answers(&s, "200 OK", world_set(&world, SW_BIT(0)), 0);
        view.keyset = add_url(k, "127.0.0.1", s.port);
        assert_int_equal(sw_keysets_ready(k, 5000, &why), SW_OK);
        assert_true(verifies(&view, 0));
        answers(&s, rows[i].head, sw_slice_cstr(rows[i].body), rows[i].delay_ms);
        UNTIL(logged(&log, "the keys that were read before stand"));
        if (!logged(&log, rows[i].why) || logged(&log, "secret")) {
            fail_msg("%s %s: %s", rows[i].head, rows[i].body, log.text);
        }
        assert_true(verifies(&view, 0));
        sw_keysets_stats(k, 0, &stats);
        assert_true(stats.failing && stats.failures > 0 && stats.keys == 1);
        answers(&s, "200 OK", world_set(&world, SW_BIT(1)), 0);
        UNTIL(verifies(&view, 1));
        UNTIL(lines(&log) == 3); /* however often it was tried */
        sw_keyset_view_fini(&view);
        sw_keysets_free(k);
        server_close(&s);
    }
}

/* Nobody answers, and what is not this machine is not asked: that is no error of the start. */
static void nobody_there(void **state)
{
    struct sw_keyset_view views[2] = {{0}, {0}};
    struct log log;
    const char *why;
    struct sw_keysets *k = room_new(&log);
    struct server s;

    (void)state;
    server_open(&s);
    server_close(&s);
    views[0].keyset = add_url(k, "127.0.0.1", s.port);
    views[1].keyset = add_url(k, "192.0.2.1", 80); /* RFC 5737: nobody's */
    assert_int_equal(sw_keysets_ready(k, 5000, &why), SW_OK);
    assert_null(sw_keyset_view_get(&views[0]));
    assert_null(sw_keyset_view_get(&views[1]));
    UNTIL(lines(&log) == 2);
    assert_true(logged(&log, "http is for this machine only"));
    assert_true(logged(&log, "answered with 503"));
    nap(300);
    assert_int_equal(lines(&log), 2);
    sw_keyset_view_fini(&views[0]);
    sw_keyset_view_fini(&views[1]);
    sw_keysets_free(k);
}

/* The start does not hang on a slow issuer, nor does its end; others are not held up. */
static void a_slow_one(void **state)
{
    struct sw_keyset_view fast = {0};
    struct server slow, s;
    struct log log;
    const char *why;
    struct sw_keysets *k = room_new(&log);

    (void)state;
    server_open(&slow);
    server_open(&s);
    answers(&slow, "200 OK", world_set(&world, SW_BIT(0)), 1000);
    answers(&s, "200 OK", world_set(&world, SW_BIT(0)), 0);
    (void)add_url(k, "127.0.0.1", slow.port);
    fast.keyset = add_url(k, "127.0.0.1", s.port);
    assert_int_equal(sw_keysets_ready(k, 100, &why), SW_OK);
    UNTIL(verifies(&fast, 0));
    answers(&s, "200 OK", world_set(&world, SW_BIT(1)), 0);
    UNTIL(verifies(&fast, 1));
    sw_keyset_view_fini(&fast);
    sw_keysets_free(k);
    server_close(&s);
    server_close(&slow);
}

/* ---- workers ----------------------------------------------------------------------------------
 */

#define WORKERS 4

struct worker {
    pthread_t thread;
    struct sw_loop *loop;
    struct sw_keyset_view view;
    struct sw_key_wait waits[32];
    bool waiting[32];
    struct sw_timer timer;
    unsigned seed, wanted, done, verified;
    atomic_bool *stop;
};

static void on_keys(struct sw_key_wait *wait)
{
    struct worker *w = wait->arg;
    size_t i = (size_t)(wait - w->waits);

    assert_true(w->waiting[i]);
    w->waiting[i] = false;
    w->done++;
}

/* Keys come and go, but key 0 always verifies; and some tokens are of nobody. */
static void on_timer(struct sw_timer *t, void *arg)
{
    struct worker *w = arg;
    const struct sw_jwks *set = sw_keyset_view_get(&w->view);
    unsigned left = 0;

    assert_non_null(set);
    assert_int_equal(world_verify(&world, 0, true, set), SW_OK);
    w->verified++;
    for (size_t i = 0; i < SW_COUNTOF(w->waits); i++) {
        char kid[32];

        if (!w->waiting[i] && !atomic_load(w->stop)) {
            (void)snprintf(kid, sizeof(kid), "k%u", w->seed++);
            w->waits[i] = (struct sw_key_wait){.loop = w->loop, .done = on_keys, .arg = w};
            w->waiting[i] =
                sw_keyset_want(w->view.keyset, sw_slice_cstr(kid), &w->waits[i]) == SW_STEP_MORE;
            w->wanted += w->waiting[i] ? 1 : 0;
        }
        left += w->waiting[i] ? 1 : 0;
    }
    if (atomic_load(w->stop) && left == 0) {
        sw_loop_stop(w->loop);
        return;
    }
    sw_timer_start(w->loop, t, sw_loop_now_ns(w->loop) + SW_NS_PER_MS);
}

static void *work(void *arg)
{
    struct worker *w = arg;

    sw_loop_run(w->loop);
    return NULL;
}

static void workers_read_while_keys_change(void **state)
{
    static struct worker workers[WORKERS];
    static const struct sw_loop_options opt = {.engine = SW_ENGINE_EPOLL,
                                               .streams_max = 4,
                                               .buffers_max = 4,
                                               .large_max = 1,
                                               .large_bytes = 65536};
    atomic_bool stop = false;
    struct server s;
    struct log log;
    const char *why;
    struct sw_keysets *k = room_new(&log);
    struct sw_keyset_stats stats;
    struct sw_keyset *ks;
    unsigned done = 0, wanted = 0;

    (void)state;
    server_open(&s);
    answers(&s, "200 OK", world_set(&world, SW_BIT(0)), 0);
    ks = add_url(k, "127.0.0.1", s.port);
    assert_int_equal(sw_keysets_ready(k, 5000, &why), SW_OK);
    for (size_t i = 0; i < WORKERS; i++) {
        struct worker *w = &workers[i];

        *w = (struct worker){.view = {.keyset = ks}, .seed = (unsigned)i * 1000000, .stop = &stop};
        assert_int_equal(sw_loop_new(&opt, &w->loop), SW_OK);
        sw_timer_init(&w->timer, on_timer, w);
        sw_timer_start(w->loop, &w->timer, 0);
        assert_int_equal(pthread_create(&w->thread, NULL, work, w), 0);
    }
    for (unsigned i = 0; i < 20; i++) {
        nap(50);
        if (i % 5 == 4) {
            answers(&s, "500 No", SW_S(""), i % 2 * 20);
        } else {
            answers(&s, "200 OK", world_set(&world, SW_BIT(0) | SW_BIT(1 + i % 7)), i % 3 * 10);
        }
        sw_keysets_stats(k, 0, &stats);
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < WORKERS; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        done += workers[i].done;
        wanted += workers[i].wanted;
        assert_true(workers[i].verified > 0);
    }
    assert_true(wanted > 0);
    assert_int_equal(done, wanted); /* nobody was forgotten */
    sw_keysets_free(k);
    for (size_t i = 0; i < WORKERS; i++) {
        sw_keyset_view_fini(&workers[i].view);
        sw_loop_free(workers[i].loop);
    }
    assert_true(requests(&s) < 200);
    server_close(&s);
}

/* The process ends while somebody waits: no word comes to what is freed then. */
static void the_end_while_somebody_waits(void **state)
{
    static const struct sw_loop_options opt = {.engine = SW_ENGINE_EPOLL,
                                               .streams_max = 4,
                                               .buffers_max = 4,
                                               .large_max = 1,
                                               .large_bytes = 65536};
    struct worker w = {.waiting = {true}};
    struct server s;
    struct log log;
    const char *why;
    struct sw_keysets *k = room_new(&log);
    struct sw_key_wait *wait = malloc(sizeof(*wait));
    struct sw_keyset *ks;

    (void)state;
    server_open(&s);
    answers(&s, "200 OK", world_set(&world, SW_BIT(0)), 300);
    ks = add_url(k, "127.0.0.1", s.port);
    assert_int_equal(sw_keysets_ready(k, 1, &why), SW_OK);
    assert_int_equal(sw_loop_new(&opt, &w.loop), SW_OK);
    assert_non_null(wait);
    *wait = (struct sw_key_wait){.loop = w.loop, .done = on_keys, .arg = &w};
    assert_int_equal(sw_keyset_want(ks, SW_S("x"), wait), SW_STEP_MORE);
    sw_keysets_free(k);
    free(wait);
    sw_loop_free(w.loop);
    server_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_watched),
        cmocka_unit_test(a_file_that_cannot_be_read_is_an_error_of_the_start),
        cmocka_unit_test(what_goes_wrong_with_a_url),
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(a_slow_one),
        cmocka_unit_test(workers_read_while_keys_change),
        cmocka_unit_test(the_end_while_somebody_waits),
    };
    int failed;

    world_init(&world);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    world_fini(&world);
    return failed;
}
