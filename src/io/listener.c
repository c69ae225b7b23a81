/* io/listener.c - listeners, and their waiting for a slot or a descriptor; common to all engines.
 *
 * Room       io/.
 * Flow       engine -> io__accept_room -> io__accept_slot -> io__accepted -> the owner's function.
 */
#include "io/io_priv.h"

static void listener_check(const struct sw_listener *l)
{
    SW_ASSERT(l != NULL);
    SW_ASSERT(l->magic == IO_LISTENER_MAGIC);
    SW_ASSERT(l->state == LI_OPEN);
}

static void listener_accept(struct sw_listener *l, bool on)
{
    if (l->accepting != on) {
        l->accepting = on;
        l->loop->engine->accept(l, on);
    }
}

static void listener_retry(struct sw_timer *t, void *arg)
{
    struct sw_listener *l = arg;

    SW_ASSERT(t == &l->timer);
    listener_check(l);
    listener_accept(l, true);
}

enum sw_err sw_listener_open(struct sw_loop *loop, int fd, sw_accept_fn *fn, void *arg,
                             struct sw_listener **ret_listener)
{
    struct sw_listener *l;
    enum sw_err err;

    io__check(loop);
    SW_ASSERT(fd >= 0);
    SW_ASSERT(fn != NULL);
    l = sw_pool_get(&loop->listener_pool);
    if (l == NULL) {
        return SW_E_LIMIT;
    }
    *l = (struct sw_listener){
        .magic = IO_LISTENER_MAGIC, .state = LI_OPEN, .fd = fd, .loop = loop, .fn = fn, .arg = arg};
    sw_timer_init(&l->timer, listener_retry, l);
    err = loop->engine->listen(l);
    if (err != SW_OK) {
        l->magic = 0;
        sw_pool_put(&loop->listener_pool, l);
        return err;
    }
    sw_list_push_back(&loop->listeners, &l->link);
    listener_accept(l, true);
    *ret_listener = l;
    return SW_OK;
}

void sw_listener_close(struct sw_listener *l)
{
    struct sw_loop *loop;

    listener_check(l);
    loop = l->loop;
    stream__drop_parked(l);
    sw_timer_stop(loop, &l->timer);
    sw_link_remove(&l->wait);
    l->state = LI_CLOSING;
    loop->engine->unlisten(l);
}

void io__listener_closed(struct sw_listener *l)
{
    SW_ASSERT(l->state == LI_CLOSING);
    SW_ASSERT(!sw_link_linked(&l->eng));
    l->state = LI_DEAD;
    sw_link_remove(&l->link);
    sw_list_push_back(&l->loop->listeners_dead, &l->link);
}

bool io__accept_room(struct sw_listener *l)
{
    struct sw_loop *loop = l->loop;

    SW_ASSERT(l->state == LI_OPEN);
    if (loop->open < loop->opt.streams_max && sw_list_empty(&loop->parked)) {
        return true;
    }
    if (!sw_link_linked(&l->wait)) {
        io__count(&loop->counters.accept_waits, 1);
        sw_list_push_back(&loop->waiting, &l->wait);
    }
    listener_accept(l, false);
    return false;
}

void io__accept_failed(struct sw_listener *l)
{
    struct sw_loop *loop = l->loop;

    SW_ASSERT(l->state == LI_OPEN);
    io__count(&loop->counters.accept_waits, 1);
    listener_accept(l, false);
    sw_timer_start(loop, &l->timer, loop->now_ns + IO_ACCEPT_RETRY_NS);
}

/* At the end of a turn: slots that became free go to the connections that wait for them. */
void listener__resume(struct sw_loop *loop)
{
    struct sw_link *at;

    while ((at = sw_list_pop_front(&loop->listeners_dead)) != NULL) {
        struct sw_listener *l = SW_CONTAINER(at, struct sw_listener, link);

        l->state = LI_FREE;
        l->magic = 0;
        sw_pool_put(&loop->listener_pool, l);
    }
    stream__unpark(loop);
    while (loop->open < loop->opt.streams_max && sw_list_empty(&loop->parked) &&
           (at = sw_list_pop_front(&loop->waiting)) != NULL) {
        struct sw_listener *l = SW_CONTAINER(at, struct sw_listener, wait);

        if (!sw_timer_running(&l->timer)) {
            listener_accept(l, true);
        }
    }
}
