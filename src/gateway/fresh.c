/* gateway/fresh.c - how much one client may make anew: sessions, entities, idempotency keys.
 *
 * What a request makes stays in the store for half an hour to days, so whoever sends enough of them
 * would fill it for all. A client has so many of them saved up, and gets them back within an hour
 * (limits.new-per-client; a bucket that leaks, kept as the one moment at which it is empty again:
 * GCRA). A key's kept answer counts by its length.
 *
 * A client is a public address, the nearest that no believed proxy has (of IPv6 its /64, which is
 * what one customer gets). Private addresses and those of this machine are not counted: there
 * stands a proxy that nobody named in `trusted`, and all its clients would be one. Clients are
 * remembered in a table of fixed size; a further one takes the place of who owes least, which
 * forgives only.
 *
 * Shared by the workers: a mutex for each set of the table, held for a few comparisons, and only
 * when something is made.
 */
#include "gateway/gateway_priv.h"

#include <arpa/inet.h>
#include <pthread.h>

#define WAYS      8u
#define SETS      (SW_FRESH_CLIENTS / WAYS)
#define WINDOW_NS (3600 * SW_NS_PER_S)
#define UNIT      4096u /* bytes of a kept answer that count as one */

struct client {
    uint64_t who;      /* a hash */
    uint64_t empty_ns; /* when nothing is owed any more */
};

struct sw_fresh {
    uint64_t seed;
    struct set {
        pthread_mutex_t mutex;
        struct client at[WAYS];
    } sets[SETS];
};

struct sw_fresh *sw_fresh__new(void)
{
    struct sw_fresh *f = calloc(1, sizeof(*f));

    if (f != NULL) {
        sw_random(&f->seed, sizeof(f->seed));
        for (size_t i = 0; i < SETS; i++) {
            pthread_mutex_init(&f->sets[i].mutex, NULL);
        }
    }
    return f;
}

void sw_fresh__free(struct sw_fresh *f)
{
    if (f != NULL) {
        for (size_t i = 0; i < SETS; i++) {
            pthread_mutex_destroy(&f->sets[i].mutex);
        }
        free(f);
    }
}

/* ---- who ------------------------------------------------------------------------------------- */

/* RFC 6890: somebody's own, or shared by many. */
static bool v4_public(uint32_t a)
{
    static const struct {
        uint32_t net, mask;
    } not_public[] = {
        {0x00000000, 0xff000000}, {0x0a000000, 0xff000000}, {0x64400000, 0xffc00000},
        {0x7f000000, 0xff000000}, {0xa9fe0000, 0xffff0000}, {0xac100000, 0xfff00000},
        {0xc0a80000, 0xffff0000},
    };

    for (size_t i = 0; i < SW_COUNTOF(not_public); i++) {
        if ((a & not_public[i].mask) == not_public[i].net) {
            return false;
        }
    }
    return true;
}

/* The bytes that name the client; empty: it is not counted. */
static struct sw_slice client_bytes(struct sw_slice text, unsigned char out[16])
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    struct sw_slice nobody = {NULL, 0};
    char copy[INET6_ADDRSTRLEN];
    uint32_t v4;

    if (text.len == 0 || text.len >= sizeof(copy)) {
        return nobody;
    }
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    if (inet_pton(AF_INET6, copy, out) == 1) {
        if (memcmp(out, mapped, sizeof(mapped)) != 0) {
            return (out[0] & 0xe0) == 0x20 ? sw_slice_of(out, 8) : nobody; /* 2000::/3 */
        }
        memmove(out, out + sizeof(mapped), 4);
    } else if (inet_pton(AF_INET, copy, out) != 1) {
        return nobody;
    }
    memcpy(&v4, out, sizeof(v4));
    return v4_public(ntohl(v4)) ? sw_slice_of(out, 4) : nobody;
}

/* ---- how much -------------------------------------------------------------------------------- */

/* The client's place, or that of whoever owes least. */
static struct client *place_of(struct set *set, uint64_t who)
{
    struct client *least = &set->at[0];

    for (size_t i = 0; i < WAYS; i++) {
        if (set->at[i].who == who) {
            return &set->at[i];
        }
        if (set->at[i].empty_ns < least->empty_ns) {
            least = &set->at[i];
        }
    }
    *least = (struct client){.who = who};
    return least;
}

uint64_t sw_fresh__take(struct sw_fresh *f, struct sw_slice address, uint32_t limit, uint64_t count,
                        bool owed, uint64_t now_ns)
{
    unsigned char bytes[16];
    struct sw_slice name = client_bytes(address, bytes);
    uint64_t who, step_ns, from_ns, wait_ns = 0;
    struct client *c;
    struct set *set;

    if (limit == 0 || name.len == 0) {
        return 0;
    }
    who = sw_slice_hash(name, f->seed) | 1; /* 0: a free place */
    set = &f->sets[who / 2 % SETS];
    step_ns = WINDOW_NS / limit;
    pthread_mutex_lock(&set->mutex);
    c = place_of(set, who);
    from_ns = SW_MAX(c->empty_ns, now_ns);
    if (!owed && from_ns - now_ns > WINDOW_NS - step_ns) {
        wait_ns = from_ns - now_ns - (WINDOW_NS - step_ns);
    } else { /* what is owed may be more than an hour's, but has an end */
        c->empty_ns =
            SW_MIN(from_ns + SW_MIN(count, (uint64_t)limit) * step_ns, now_ns + 2 * WINDOW_NS);
    }
    pthread_mutex_unlock(&set->mutex);
    return wait_ns;
}

/* ---- of an exchange -------------------------------------------------------------------------- */

static struct sw_slice client_of(const struct sw_exchange *x)
{
    return x->alarms != NULL ? (struct sw_slice){NULL, 0}
                             : sw_place_client_address(&x->ask, x->peer);
}

bool sw_ex__fresh(struct sw_ask *ask)
{
    struct sw_exchange *x = SW_CONTAINER(ask, struct sw_exchange, ask);
    uint32_t limit = x->worker->config->limits.new_per_client;
    uint64_t wait_ns;

    if (limit == 0) {
        return true;
    }
    wait_ns = sw_fresh__take(sw_admit__fresh(x->worker->admit), client_of(x), limit, 1, false,
                             sw_ex__now_ns(x));
    if (wait_ns > 0) {
        x->extra_lines = sw_arena_printf(&x->arena, "Retry-After: %llu\r\n",
                                         (unsigned long long)(wait_ns / SW_NS_PER_S + 1));
    }
    return wait_ns == 0;
}

void sw_ex__fresh_owe(struct sw_exchange *x, size_t bytes)
{
    uint32_t limit = x->worker->config->limits.new_per_client;

    if (limit > 0 && bytes >= UNIT) {
        (void)sw_fresh__take(sw_admit__fresh(x->worker->admit), client_of(x), limit, bytes / UNIT,
                             true, sw_ex__now_ns(x));
    }
}
