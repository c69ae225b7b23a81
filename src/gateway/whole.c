/* gateway/whole.c - bodies that must be here as a whole before anything can be done with them: an
 * envelope, an answer that is stored under an idempotency key, a state by the side API.
 *
 * Their memory is of the large budget and goes out as a buffer: bytes are copied once, on arrival.
 */
#include "gateway/gateway_priv.h"

struct sw_whole {
    struct sw_buf buf; /* first: gone() gets its address */
    struct sw_budget *budget;
    size_t cap;
    char data[];
};

static void whole_gone(struct sw_buf *b)
{
    struct sw_whole *whole = SW_CONTAINER(b, struct sw_whole, buf);

    sw_budget_give(whole->budget, whole);
}

static struct sw_whole *whole_new(struct sw_worker *w, size_t cap)
{
    struct sw_whole *whole = sw_budget_take(w->env.large, sizeof(*whole) + cap);

    if (whole != NULL) {
        whole->budget = w->env.large;
        whole->cap = cap;
        sw_buf_lend(&whole->buf, w->loop, whole->data, (uint32_t)cap, whole_gone);
    }
    return whole;
}

enum sw_err sw_gather__begin(struct sw_gather *g, struct sw_worker *w, size_t expect, size_t max)
{
    SW_ASSERT(g->whole == NULL);
    SW_ASSERT(max <= UINT32_MAX - SW_BUF_BYTES);
    g->len = 0;
    g->max = max;
    g->full = false;
    g->whole = whole_new(w, SW_MIN(expect, max + SW_BUF_BYTES));
    return g->whole == NULL ? SW_E_LARGE_FULL : SW_OK;
}

enum sw_err sw_gather__reserve(struct sw_gather *g, struct sw_worker *w, size_t bytes)
{
    struct sw_whole *bigger;
    size_t cap;

    SW_ASSERT(g->whole != NULL);
    SW_ASSERT(!g->full);
    SW_ASSERT(bytes <= SW_BUF_BYTES);
    if (bytes <= g->whole->cap - g->len) {
        return SW_OK;
    }
    cap = SW_MIN(SW_MAX(2 * g->whole->cap, g->len + bytes), g->max + SW_BUF_BYTES);
    SW_ASSERT(g->len + bytes <= cap); /* not more than max so far, and a piece */
    bigger = whole_new(w, cap);
    if (bigger == NULL) {
        return SW_E_LARGE_FULL;
    }
    memcpy(bigger->data, g->whole->data, g->len);
    sw_buf_unref(&g->whole->buf);
    g->whole = bigger;
    return SW_OK;
}

enum sw_err sw_gather__add(struct sw_gather *g, struct sw_worker *w, struct sw_slice data)
{
    enum sw_err err = sw_gather__reserve(g, w, data.len);

    if (err != SW_OK) {
        return err;
    }
    memcpy(g->whole->data + g->len, data.ptr, data.len);
    g->len += data.len;
    g->full = g->len > g->max;
    return SW_OK;
}

void sw_gather__drop(struct sw_gather *g)
{
    if (g->whole != NULL) {
        sw_buf_unref(&sw_take(&g->whole)->buf);
    }
    g->len = 0;
}

struct sw_slice sw_gather__bytes(const struct sw_gather *g)
{
    return g->whole == NULL ? (struct sw_slice){NULL, 0} : sw_slice_of(g->whole->data, g->len);
}

struct sw_buf *sw_gather__buf(const struct sw_gather *g)
{
    return g->whole == NULL ? NULL : &g->whole->buf;
}
