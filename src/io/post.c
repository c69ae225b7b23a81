/* io/post.c - messages from any thread: a lock-free stack, taken whole and turned round.
 *
 * Room       io/. The only file of the room, with loop.c's stop and stats, that other threads
 * enter. Flow       sw_loop_post -> (wake) -> post__run in the loop's turn -> fn.
 *
 * Why nobody sleeps through a message: the poster pushes and then looks at `sleeping`; the loop
 * sets `sleeping` and then looks at the stack. All four are sequentially consistent, so at least
 * one of them sees the other.
 */
#include "io/io_priv.h"

void post__wake(struct sw_loop *loop)
{
    if (atomic_load(&loop->sleeping) && atomic_exchange(&loop->sleeping, false)) {
        loop->engine->wake(loop);
    }
}

void sw_loop_post(struct sw_loop *loop, struct sw_post *post)
{
    struct sw_post *head;

    io__check(loop);
    SW_ASSERT(post != NULL);
    SW_ASSERT(post->fn != NULL);
    head = atomic_load_explicit(&loop->posts, memory_order_relaxed);
    do {
        post->next = head;
    } while (!atomic_compare_exchange_weak(&loop->posts, &head, post));
    post__wake(loop);
}

bool post__pending(struct sw_loop *loop)
{
    return atomic_load(&loop->posts) != NULL;
}

void post__run(struct sw_loop *loop)
{
    struct sw_post *post, *fifo = NULL;

    if (atomic_load_explicit(&loop->posts, memory_order_relaxed) == NULL) {
        return;
    }
    post = atomic_exchange(&loop->posts, NULL);
    while (post != NULL) {
        struct sw_post *next = post->next;

        post->next = fifo;
        fifo = post;
        post = next;
    }
    while (fifo != NULL) {
        post = fifo;
        fifo = post->next; /* before fn: then the memory is the sender's again */
        io__count(&loop->counters.posts, 1);
        post->fn(post, post->arg);
    }
}
