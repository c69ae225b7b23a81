/* gateway/inq.c - bytes that came and were not yet understood: pieces in order of arrival. */
#include "gateway/gateway_priv.h"

bool sw_inq__push(struct sw_worker *w, struct sw_inq *q, struct sw_buf *buf, struct sw_slice bytes)
{
    struct sw_piece *p;

    SW_ASSERT(bytes.len > 0);
    if (q->last != NULL && q->last->buf == buf &&
        q->last->bytes.ptr + q->last->bytes.len == bytes.ptr) {
        q->last->bytes.len += bytes.len; /* the engine filled the same buffer further */
        q->bytes += bytes.len;
        return true;
    }
    if (q->last != NULL && bytes.len <= SW_COPY_BYTES_MAX && q->last->buf->refs == 1) {
        char *end =
            q->last->buf->data + (q->last->bytes.ptr - q->last->buf->data) + q->last->bytes.len;

        if (bytes.len <= q->last->buf->cap - (size_t)(end - q->last->buf->data)) {
            memcpy(end, bytes.ptr, bytes.len); /* the buffer is ours alone, and has room */
            q->last->bytes.len += bytes.len;
            q->bytes += bytes.len;
            return true;
        }
    }
    p = sw_pool_get(&w->pieces);
    if (p == NULL) {
        return false;
    }
    *p = (struct sw_piece){NULL, sw_buf_ref(buf), bytes};
    if (q->last == NULL) {
        q->first = p;
    } else {
        q->last->next = p;
    }
    q->last = p;
    q->bytes += bytes.len;
    return true;
}

void sw_inq__drop(struct sw_worker *w, struct sw_inq *q, size_t n)
{
    struct sw_piece *p = q->first;

    SW_ASSERT(p != NULL);
    SW_ASSERT(n <= p->bytes.len);
    p->bytes = sw_slice_tail(p->bytes, n);
    q->bytes -= n;
    if (p->bytes.len == 0) {
        q->first = p->next;
        if (q->first == NULL) {
            q->last = NULL;
        }
        sw_buf_unref(p->buf);
        sw_pool_put(&w->pieces, p);
    }
}

void sw_inq__clear(struct sw_worker *w, struct sw_inq *q)
{
    while (q->first != NULL) {
        sw_inq__drop(w, q, q->first->bytes.len);
    }
    SW_ASSERT(q->bytes == 0);
}

/* The gathering buffer is our own, so later bytes are appended to it in place. */
bool sw_inq__gather(struct sw_worker *w, struct sw_inq *q, size_t max)
{
    struct sw_piece *p = q->first;
    struct sw_buf *big;
    size_t room, have;

    if (p == NULL || p->next == NULL) {
        return true;
    }
    have = p->bytes.len;
    if (p->buf->cap >= max && p->buf->refs == 1 && p->bytes.ptr == p->buf->data) {
        big = p->buf;
    } else {
        big = sw_buf_get(w->loop, max);
        if (big == NULL) {
            return false;
        }
        SW_ASSERT(have <= big->cap);
        memcpy(big->data, p->bytes.ptr, have);
        sw_buf_unref(p->buf);
        p->buf = big;
        p->bytes = sw_slice_of(big->data, have);
    }
    room = big->cap - have;
    while (p->next != NULL && room > 0) {
        struct sw_piece *next = p->next;
        size_t n = SW_MIN(room, next->bytes.len);

        memcpy(big->data + p->bytes.len, next->bytes.ptr, n);
        p->bytes.len += n;
        room -= n;
        next->bytes = sw_slice_tail(next->bytes, n);
        if (next->bytes.len > 0) {
            break;
        }
        p->next = next->next;
        if (p->next == NULL) {
            q->last = p;
        }
        sw_buf_unref(next->buf);
        sw_pool_put(&w->pieces, next);
    }
    return true;
}
