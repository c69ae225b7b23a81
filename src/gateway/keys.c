/* gateway/keys.c - the key ring of this process: read at start, watched, and swapped whole.
 *
 * Thread     Main. Workers have copies of their own, which they replace when a message asks them
 * to, between two turns.
 *
 * Workers do not change all at once, and one must not meet what another one made with a key that it
 * does not know yet. So a ring with another active key comes in two steps: first all learn the keys
 * (sw_keyring_bridge), and when the last one has said so, all begin to make with the new one. What
 * is looked at next is looked at when a change has reached everybody; so there is one message a
 * worker, and nothing of the old ring is left behind by then.
 *
 *     IDLE --file differs--> BRIDGE --all told--> SWAP --all told--> IDLE
 *              `--the same key makes--------------^
 */
#include "gateway/gateway_priv.h"

#include <errno.h>
#include <sys/stat.h>

#define PATH_BYTES_MAX 4096

/* What is looked at of a file, to know whether it is another one. */
struct stamp {
    int error; /* of stat; the rest is 0 then */
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified, changed;
};

/* Keys, and what is made of them. */
struct chest {
    struct sw_keyring ring;
    struct sw_mint mint;
};

struct sw_keys {
    const struct sw_config *config;
    struct sw_loop *loop;
    struct sw_keys_rules rules;
    struct sw_timer look;
    char path[PATH_BYTES_MAX]; /* "": no file */
    struct stamp seen;         /* of what was read, well or not, last */
    bool file_bad;             /* the last reading failed: the ring is an older one */
    bool told_full, told_fixed;
    enum { KEYS_IDLE, KEYS_BRIDGE, KEYS_SWAP } state;
    struct chest now;    /* what workers have, or get in SWAP */
    struct chest bridge; /* of BRIDGE */
    struct chest next;   /* of BRIDGE: what follows */
    size_t waiting;      /* workers that have not said yet that they changed */
    size_t worker_count;
    struct member {
        struct sw_keys *keys;
        struct sw_loop *loop;
        struct sw_worker *worker;
        struct sw_post post; /* there, and back */
    } members[SW_WORKERS_MAX];
};

/* ---- what the configuration says --------------------------------------------------------------
 */

static bool mints(const struct sw_config_route *r)
{
    return r->token.on && r->token.mint.on;
}

static bool has_phantom(const struct sw_config_route *r)
{
    return r->placement == SW_PLACE_SESSION && r->session.phantom.on;
}

static bool keeps(const struct sw_config_route *r, enum sw_placement_kind kind)
{
    return r->placement == kind || r->moved_from == kind;
}

void sw_gateway_keys_rules(const struct sw_config *config, struct sw_keys_rules *ret_rules)
{
    *ret_rules = (struct sw_keys_rules){.rotate_s = config->keys_rotate_s};
    for (size_t i = 0; i < config->route_count; i++) {
        const struct sw_config_route *r = &config->routes[i];

        if (keeps(r, SW_PLACE_STICKY)) {
            ret_rules->life_s = SW_MAX(ret_rules->life_s, r->sticky.absolute_s);
        }
        if (keeps(r, SW_PLACE_SEALED)) {
            ret_rules->life_s = SW_MAX(ret_rules->life_s, r->sealed.absolute_s);
        }
        if (mints(r)) {
            ret_rules->life_s = SW_MAX(ret_rules->life_s, r->token.mint.life_s + r->token.skew_s);
        }
        if (has_phantom(r)) {
            ret_rules->life_s = SW_MAX(ret_rules->life_s, r->session.phantom.life_s);
        }
        ret_rules->names |= r->placement == SW_PLACE_SESSION && r->session.encrypt;
    }
}

/* Is anything made that must be known again after a restart, or by another gateway? */
static bool needs_keys(const struct sw_config *config)
{
    for (size_t i = 0; i < config->route_count; i++) {
        const struct sw_config_route *r = &config->routes[i];

        if (keeps(r, SW_PLACE_STICKY) || keeps(r, SW_PLACE_SESSION) || keeps(r, SW_PLACE_SEALED) ||
            mints(r)) {
            return true;
        }
    }
    return false;
}

/* ---- keys, and what is made of them -----------------------------------------------------------
 */

static void chest_empty(struct chest *c)
{
    sw_mint_fini(&c->mint);
    explicit_bzero(&c->ring, sizeof(c->ring));
    c->mint = (struct sw_mint){.sets = {NULL}};
}

static enum sw_err chest_fill(struct chest *c, const struct sw_config *config,
                              const struct sw_keyring *ring)
{
    enum sw_err err;

    SW_ASSERT(c->ring.count == 0);
    *c = (struct chest){.ring = *ring};
    c->ring.uses = NULL;
    err = sw_mint_init(&c->mint, &c->ring, sw_mint_algs(config));
    if (err != SW_OK) {
        explicit_bzero(c, sizeof(*c));
    }
    return err;
}

static void chest_move(struct chest *to, struct chest *from)
{
    chest_empty(to);
    *to = *from;
    explicit_bzero(from, sizeof(*from));
}

/* ---- to the workers, and back -----------------------------------------------------------------
 */

static void swap_next(struct sw_keys *k);

/* On the main thread. */
static void on_told(struct sw_post *post, void *arg)
{
    struct member *m = arg;
    struct sw_keys *k = m->keys;

    (void)post;
    SW_ASSERT(k->state != KEYS_IDLE);
    SW_ASSERT(k->waiting > 0);
    if (--k->waiting == 0) {
        swap_next(k);
    }
}

/* On the worker's thread, between two turns of its exchanges. */
static void on_swap(struct sw_post *post, void *arg)
{
    struct member *m = arg;
    const struct chest *c = m->keys->state == KEYS_BRIDGE ? &m->keys->bridge : &m->keys->now;

    sw_worker_keys(m->worker, &c->ring, &c->mint);
    post->fn = on_told;
    sw_loop_post(m->keys->loop, post);
}

static void swap_send(struct sw_keys *k)
{
    SW_ASSERT(k->waiting == 0);
    SW_ASSERT(k->state != KEYS_IDLE);
    k->waiting = k->worker_count;
    for (size_t i = 0; i < k->worker_count; i++) {
        k->members[i].post.fn = on_swap;
        k->members[i].post.arg = &k->members[i];
        sw_loop_post(k->members[i].loop, &k->members[i].post);
    }
}

static void swap_next(struct sw_keys *k)
{
    if (k->state == KEYS_BRIDGE) {
        chest_move(&k->now, &k->next);
        k->state = KEYS_SWAP;
        swap_send(k);
        return;
    }
    SW_ASSERT(k->state == KEYS_SWAP);
    chest_empty(&k->bridge); /* all have copies of the new one */
    k->state = KEYS_IDLE;
}

/* Takes the ring over and begins to hand it out. */
static enum sw_err swap_start(struct sw_keys *k, const struct sw_keyring *ring)
{
    struct sw_keyring bridge;
    enum sw_err err;

    SW_ASSERT(k->state == KEYS_IDLE);
    err = chest_fill(&k->next, k->config, ring);
    if (err != SW_OK) {
        return err;
    }
    if (sw_keyring_bridge(&k->now.ring, ring, &bridge)) {
        err = chest_fill(&k->bridge, k->config, &bridge);
        explicit_bzero(&bridge, sizeof(bridge));
        if (err != SW_OK) {
            chest_empty(&k->next);
            return err;
        }
        k->state = KEYS_BRIDGE;
    } else {
        chest_move(&k->now, &k->next);
        k->state = KEYS_SWAP;
    }
    swap_send(k);
    return SW_OK;
}

/* ---- the file ---------------------------------------------------------------------------------
 */

static struct stamp stamp_of(const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0) {
        return (struct stamp){.error = errno};
    }
    return (struct stamp){0, st.st_dev, st.st_ino, st.st_size, st.st_mtim, st.st_ctim};
}

static bool time_same(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool stamp_same(const struct stamp *a, const struct stamp *b)
{
    return a->error == b->error && a->device == b->device && a->inode == b->inode &&
           a->size == b->size && time_same(&a->modified, &b->modified) &&
           time_same(&a->changed, &b->changed);
}

static void tell_change(const struct sw_keyring *from, const struct sw_keyring *to)
{
    const struct sw_key *makes = &from->keys[from->active], *kept = sw_keyring_find(to, makes->id);

    sw_log(SW_LOG_INFO, "keys: the file has changed: %zu key%s, key %u is active", to->count,
           to->count == 1 ? "" : "s", to->keys[to->active].id);
    if (kept == NULL || memcmp(kept->secret, makes->secret, sizeof(kept->secret)) != 0) {
        sw_log(SW_LOG_WARN,
               "keys: key %u, which was active, is not in the file any more: what was made with "
               "it is not accepted from now on",
               makes->id);
    }
}

static void file_look(struct sw_keys *k)
{
    struct stamp stamp = stamp_of(k->path); /* before it is read: what comes later is seen later */
    struct sw_keyring ring;
    const char *why = "no memory";
    enum sw_err err;

    if (stamp_same(&stamp, &k->seen)) {
        return;
    }
    k->seen = stamp;
    err = sw_keyring_read(k->path, &ring, &why);
    if (err == SW_OK && !sw_keyring_same(&ring, &k->now.ring)) {
        tell_change(&k->now.ring, &ring);
        err = swap_start(k, &ring);
        why = sw_err_text(err);
        k->told_full = false;
    } else if (err == SW_OK && k->file_bad) {
        sw_log(SW_LOG_INFO, "keys: the file can be read again, and says what it said before");
    }
    if (err != SW_OK) {
        sw_log(SW_LOG_ERROR, "keys: %s; the keys that were read before stay in use", why);
    }
    k->file_bad = err != SW_OK;
    if (err == SW_E_NO_MEMORY) {
        k->seen = (struct stamp){.error = -1}; /* next time */
    }
    explicit_bzero(&ring, sizeof(ring));
}

/* ---- rotation by age --------------------------------------------------------------------------
 */

struct rotation {
    struct sw_keys *keys;
    int64_t now_unix_s;
    struct sw_keys_due done; /* what was done */
};

/* Under the file's lock, on what the file says now: another gateway may have been first. */
static enum sw_err rotate_step(void *arg, struct sw_keyring *ring, bool *ret_changed,
                               const char **ret_why)
{
    struct rotation *r = arg;
    struct sw_keys_due due = sw_keyring_due(ring, &r->keys->rules, r->now_unix_s);
    enum sw_err err = SW_OK;

    *ret_changed = true;
    switch (due.step) {
    case SW_KEYS_ADD:
        err = sw_keyring_add(ring, r->now_unix_s, &due.id);
        break;
    case SW_KEYS_PROMOTE:
        err = sw_keyring_promote(ring, due.id, r->now_unix_s);
        break;
    case SW_KEYS_REMOVE:
        err = sw_keyring_remove(ring, due.id);
        break;
    case SW_KEYS_KEEP:
    case SW_KEYS_FULL:
        *ret_changed = false;
        break;
    }
    *ret_why = sw_err_text(err);
    r->done = due;
    return err;
}

static void rotate(struct sw_keys *k)
{
    static const char *const said[] = {
        [SW_KEYS_ADD] = "was added, and will be promoted when every gateway has read it",
        [SW_KEYS_PROMOTE] = "is active now",
        [SW_KEYS_REMOVE] = "was removed: nothing that was made with it can be alive",
    };
    struct rotation r = {.keys = k, .now_unix_s = sw_loop_now_unix_s(k->loop)};
    struct sw_keys_due due = sw_keyring_due(&k->now.ring, &k->rules, r.now_unix_s);
    struct sw_keyring ring;
    const char *why = "";
    enum sw_err err;

    if (due.step == SW_KEYS_KEEP) {
        return;
    }
    if (due.step == SW_KEYS_FULL) {
        if (!k->told_full) {
            sw_log(SW_LOG_ERROR,
                   "keys: a new key is due, but there are %d already, and all may be needed: "
                   "keys.rotate is too short for what lives that long, or `stateway keys retire` "
                   "must take some out",
                   SW_KEYS_MAX);
        }
        k->told_full = true;
        return;
    }
    err = sw_keyring_change(k->path, 0, r.now_unix_s, rotate_step, &r, &ring, &why);
    explicit_bzero(&ring, sizeof(ring));
    if (err == SW_E_CONFLICT) {
        return; /* whoever has the lock may be doing the same; it is looked at again soon */
    }
    if (err != SW_OK) {
        if (!k->told_fixed) {
            sw_log(SW_LOG_ERROR, "keys: keys.rotate: %s", why);
        }
        k->told_fixed = true;
        return;
    }
    k->told_fixed = false;
    if (r.done.step != SW_KEYS_KEEP && r.done.step != SW_KEYS_FULL) {
        sw_log(SW_LOG_INFO, "keys: keys.rotate: key %u %s", r.done.id, said[r.done.step]);
    }
}

static void on_look(struct sw_timer *t, void *arg)
{
    struct sw_keys *k = arg;

    if (k->state == KEYS_IDLE) {
        file_look(k);
        if (k->state == KEYS_IDLE && !k->file_bad) {
            rotate(k);
        }
    }
    sw_timer_start(k->loop, t, sw_loop_now_ns(k->loop) + SW_KEYS_LOOK_NS);
}

/* ---- life -------------------------------------------------------------------------------------
 */

/* The folder of the key ring, when nobody made it yet: the store's, usually. */
static void make_folder_of(const char *path)
{
    char folder[PATH_BYTES_MAX];
    struct sw_out out = sw_out_init(folder, sizeof(folder) - 1);
    const char *slash = strrchr(path, '/');

    if (slash == NULL || slash == path) {
        return;
    }
    sw_out_put(&out, path, (size_t)(slash - path));
    folder[out.len] = '\0';
    (void)mkdir(folder, 0700); /* what is wrong with it, reading or writing the ring will tell */
}

static enum sw_err ring_find(struct sw_keys *k, struct sw_keyring *ret_ring, const char **ret_why)
{
    int64_t now_unix_s = sw_loop_now_unix_s(k->loop);
    struct sw_out out = sw_out_init(k->path, sizeof(k->path) - 1);
    enum sw_err err;

    if (!needs_keys(k->config)) {
        sw_keyring_make(now_unix_s, ret_ring); /* nothing that must be kept */
        return SW_OK;
    }
    err = sw_keyring_from_env(ret_ring, ret_why);
    if (err != SW_E_NOT_FOUND) {
        if (err == SW_OK && k->rules.rotate_s > 0) {
            sw_log(SW_LOG_WARN,
                   "keys: keys.rotate does nothing with keys of %s: they are changed "
                   "where they come from",
                   SW_KEYS_ENV);
        }
        return err;
    }
    sw_out_slice(&out, k->config->keys_file);
    if (out.overflowed) {
        *ret_why = "the path is too long";
        return SW_E_LIMIT;
    }
    k->path[out.len] = '\0';
    make_folder_of(k->path);
    k->seen = stamp_of(k->path);
    if (k->seen.error != 0) {
        k->seen.error = -1; /* it is made now: that it is missing later is another thing */
    }
    return sw_keyring_load(k->path, now_unix_s, ret_ring, ret_why);
}

enum sw_err sw_keys__new(const struct sw_config *config, struct sw_loop *loop,
                         struct sw_keys **ret_keys, const char **ret_why)
{
    struct sw_keys *k = calloc(1, sizeof(*k));
    struct sw_keyring ring;
    enum sw_err err;

    *ret_why = "no memory";
    if (k == NULL) {
        return SW_E_NO_MEMORY;
    }
    k->config = config;
    k->loop = loop;
    sw_gateway_keys_rules(config, &k->rules);
    sw_timer_init(&k->look, on_look, k);
    err = ring_find(k, &ring, ret_why);
    if (err == SW_OK) {
        err = chest_fill(&k->now, config, &ring);
        explicit_bzero(&ring, sizeof(ring));
    }
    if (err != SW_OK) {
        sw_keys__free(k);
        return err;
    }
    *ret_keys = k;
    return SW_OK;
}

const struct sw_keyring *sw_keys__ring(const struct sw_keys *k)
{
    return &k->now.ring;
}

const struct sw_mint *sw_keys__mint(const struct sw_keys *k)
{
    return &k->now.mint;
}

const struct sw_keys_rules *sw_keys__rules(const struct sw_keys *k)
{
    return &k->rules;
}

bool sw_keys__stale(const struct sw_keys *k)
{
    return k->file_bad;
}

void sw_keys__join(struct sw_keys *k, struct sw_loop *loop, struct sw_worker *worker)
{
    SW_ASSERT(k->worker_count < SW_WORKERS_MAX);
    k->members[k->worker_count++] = (struct member){.keys = k, .loop = loop, .worker = worker};
}

void sw_keys__watch(struct sw_keys *k)
{
    if (k->path[0] != '\0') {
        sw_timer_start(k->loop, &k->look, sw_loop_now_ns(k->loop) + SW_KEYS_LOOK_NS);
    }
}

void sw_keys__stop(struct sw_keys *k)
{
    sw_timer_stop(k->loop, &k->look);
}

void sw_keys__free(struct sw_keys *k)
{
    if (k == NULL) {
        return;
    }
    chest_empty(&k->now);
    chest_empty(&k->bridge);
    chest_empty(&k->next);
    free(k);
}
