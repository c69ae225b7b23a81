/* io/buf.c - buffers: two sizes, budgets, references.
 *
 * Room       io/. Address space for all is taken at start; a page is touched when first used.
 * Flow       An engine receives into a small buffer and lends it to `recv`; a composed head goes
 * into one by sw_buf_get; sends keep a reference until the kernel took the bytes.
 *
 * An engine that lends buffers to the kernel (io_uring) has them on top of buffers_max: `ring_bufs`
 * counts them until bytes arrive in them. Kept by the receiver they count as used, so the budget
 * may be passed by engine->lent_max; nothing more is lent until it is kept again.
 */
#include <sys/mman.h>

#include "io/io_priv.h"

static void *map(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

SW_MUST static bool bufs_init(struct io_bufs *b, uint32_t bytes, uint32_t count)
{
    *b = (struct io_bufs){.bytes = bytes, .count = count};
    if (count == 0) {
        return true;
    }
    b->data = map((size_t)bytes * count);
    b->bufs = map(sizeof(*b->bufs) * count);
    return b->data != NULL && b->bufs != NULL;
}

static void bufs_fini(struct io_bufs *b)
{
    if (b->data != NULL) {
        munmap(b->data, (size_t)b->bytes * b->count);
    }
    if (b->bufs != NULL) {
        munmap(b->bufs, sizeof(*b->bufs) * b->count);
    }
    *b = (struct io_bufs){0};
}

static struct sw_buf *bufs_get(struct io_bufs *pool, struct sw_loop *loop)
{
    struct sw_buf *b = pool->free_list;

    if (b != NULL) {
        SW_ASSERT(b->refs == 0);
        pool->free_list = b->next;
    } else if (pool->touched < pool->count) {
        b = &pool->bufs[pool->touched];
        b->data = pool->data + (size_t)pool->touched * pool->bytes;
        b->cap = pool->bytes;
        b->loop = loop;
        pool->touched++;
    } else {
        return NULL;
    }
    b->next = NULL;
    b->refs = 1;
    return b;
}

enum sw_err buf__init(struct sw_loop *loop)
{
    const struct sw_loop_options *opt = &loop->opt;

    if (!bufs_init(&loop->small, SW_BUF_BYTES, opt->buffers_max + loop->engine->lent_max) ||
        !bufs_init(&loop->large, opt->large_bytes, opt->large_max)) {
        buf__fini(loop);
        return SW_E_NO_MEMORY;
    }
    return SW_OK;
}

void buf__fini(struct sw_loop *loop)
{
    bufs_fini(&loop->small);
    bufs_fini(&loop->large);
}

bool buf__small_left(const struct sw_loop *loop)
{
    return io__gauge(&loop->counters.buffers) < loop->opt.buffers_max;
}

struct sw_buf *buf__lend(struct sw_loop *loop)
{
    struct sw_buf *b;

    if (!buf__small_left(loop) || loop->ring_bufs == loop->engine->lent_max) {
        return NULL;
    }
    b = bufs_get(&loop->small, loop);
    if (b != NULL) {
        loop->ring_bufs++;
    }
    return b;
}

void buf__lent_back(struct sw_loop *loop)
{
    SW_ASSERT(loop->ring_bufs > 0);
    loop->ring_bufs--;
    io__count(&loop->counters.buffers, 1);
}

struct sw_buf *sw_buf_get(struct sw_loop *loop, size_t size)
{
    struct sw_buf *b;

    io__check(loop);
    if (size > SW_BUF_BYTES) {
        b = size > loop->large.bytes ? NULL : bufs_get(&loop->large, loop);
        if (b != NULL) {
            io__count(&loop->counters.large, 1);
        }
        return b;
    }
    if (!buf__small_left(loop)) {
        return NULL;
    }
    b = bufs_get(&loop->small, loop);
    if (b != NULL) {
        io__count(&loop->counters.buffers, 1);
    }
    return b;
}

void sw_buf_unref(struct sw_buf *b)
{
    struct sw_loop *loop;
    struct io_bufs *pool;

    if (b == NULL) {
        return;
    }
    SW_ASSERT(b->refs > 0);
    b->refs--;
    if (b->refs > 0) {
        return;
    }
    if (b->gone != NULL) {
        b->gone(b);
        return;
    }
    loop = b->loop;
    io__check(loop);
    if (b >= loop->small.bufs && b < loop->small.bufs + loop->small.count) {
        pool = &loop->small;
        io__count(&loop->counters.buffers, -1u);
    } else {
        pool = &loop->large;
        SW_ASSERT(b >= pool->bufs && b < pool->bufs + pool->count);
        io__count(&loop->counters.large, -1u);
    }
    b->next = pool->free_list; /* last in, first out: warm in the cache */
    pool->free_list = b;
}

void sw_buf_lend(struct sw_buf *b, struct sw_loop *loop, char *data, uint32_t cap,
                 void (*gone)(struct sw_buf *b))
{
    *b = (struct sw_buf){.data = data, .cap = cap, .refs = 1, .loop = loop, .gone = gone};
}
