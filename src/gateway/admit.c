/* gateway/admit.c - the queue of a key: requests that may write the same state go one by one.
 *
 * FIFO, bounded, woken by event. The struct of whoever holds the key is the queue's entry in the
 * table, so nothing is allocated: when it leaves, the first in line takes its place. Shards with a
 * mutex each; it is held for a few pointers only. Across gateways the truth is the version in the
 * store; this queue only keeps conflicts rare.
 */
#include "gateway/gateway_priv.h"

#include <pthread.h>

#define SHARDS  64
#define BUCKETS 1024 /* of a shard */

struct shard {
    pthread_mutex_t mutex;
    struct sw_admit_wait *buckets[BUCKETS];
};

struct sw_admit {
    struct shard shards[SHARDS];
    struct sw_fresh *fresh; /* what else the workers share about who may do what */
};

struct sw_admit *sw_admit_new(void)
{
    struct sw_admit *a = calloc(1, sizeof(*a));
    struct sw_fresh *fresh = sw_fresh__new();

    if (a == NULL || fresh == NULL) {
        free(a);
        sw_fresh__free(fresh);
        return NULL;
    }
    a->fresh = fresh;
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&a->shards[i].mutex, NULL);
    }
    return a;
}

void sw_admit_free(struct sw_admit *a)
{
    if (a != NULL) {
        for (size_t i = 0; i < SHARDS; i++) {
            pthread_mutex_destroy(&a->shards[i].mutex);
        }
        sw_fresh__free(a->fresh);
        free(a);
    }
}

struct sw_fresh *sw_admit__fresh(struct sw_admit *a)
{
    return a->fresh;
}

/* Keys are hashes already: their own bytes spread them. */
static struct sw_admit_wait **bucket_of(struct sw_admit *a, const struct sw_store_key *key,
                                        struct shard **ret_shard)
{
    uint32_t word;

    memcpy(&word, key->bytes, sizeof(word));
    *ret_shard = &a->shards[word % SHARDS];
    return &(*ret_shard)->buckets[word / SHARDS % BUCKETS];
}

static struct sw_admit_wait **find(struct sw_admit_wait **at, const struct sw_store_key *key)
{
    while (*at != NULL && memcmp((*at)->key.bytes, key->bytes, sizeof(key->bytes)) != 0) {
        at = &(*at)->hash_next;
    }
    return at;
}

static void on_granted(struct sw_post *post, void *arg)
{
    struct sw_admit_wait *w = arg;

    (void)post;
    SW_ASSERT(w->state == ADMIT_GRANTING);
    w->state = ADMIT_HELD;
    w->granted(w);
}

/* Would the asker wait for somebody who waits for it? */
static bool waits_for_itself(const struct sw_admit_wait *holder, const struct sw_admit_ask *ask)
{
    for (size_t i = 0; i < ask->trace_count; i++) {
        if (ask->traces[i] == holder->trace) {
            return true;
        }
    }
    return false;
}

enum sw_admitted sw_admit__enter(struct sw_admit *a, struct sw_admit_wait *w,
                                 const struct sw_admit_ask *ask)
{
    struct shard *shard;
    struct sw_admit_wait **bucket = bucket_of(a, &ask->key, &shard), **at;
    enum sw_admitted result;

    SW_ASSERT(w->state == ADMIT_NONE);
    memset(w, 0, sizeof(*w));
    w->key = ask->key;
    w->loop = ask->loop;
    w->granted = ask->granted;
    w->trace = ask->trace;
    w->post.fn = on_granted;
    w->post.arg = w;
    pthread_mutex_lock(&shard->mutex);
    at = find(bucket, &ask->key);
    if (*at == NULL) {
        sw_list_init(&w->queue);
        w->hash_next = *bucket;
        *bucket = w;
        w->state = ADMIT_HELD;
        result = SW_ADMIT_HELD;
    } else if (waits_for_itself(*at, ask)) {
        result = SW_ADMIT_REENTRY;
    } else if ((*at)->queue_length >= ask->queue_max) {
        result = SW_ADMIT_FULL;
    } else {
        sw_list_push_back(&(*at)->queue, &w->link);
        (*at)->queue_length++;
        w->state = ADMIT_WAITING;
        result = SW_ADMIT_WAIT;
    }
    pthread_mutex_unlock(&shard->mutex);
    return result;
}

void sw_admit__leave(struct sw_admit *a, struct sw_admit_wait *w)
{
    struct shard *shard;
    struct sw_admit_wait **bucket = bucket_of(a, &w->key, &shard), **at;
    struct sw_admit_wait *next = NULL;
    struct sw_link *link;

    SW_ASSERT(w->state == ADMIT_HELD);
    pthread_mutex_lock(&shard->mutex);
    at = find(bucket, &w->key);
    SW_ASSERT(*at == w);
    link = sw_list_pop_front(&w->queue);
    if (link == NULL) {
        *at = w->hash_next;
    } else {
        next = SW_CONTAINER(link, struct sw_admit_wait, link);
        sw_list_init(&next->queue);
        while ((link = sw_list_pop_front(&w->queue)) != NULL) {
            sw_list_push_back(&next->queue, link);
        }
        next->queue_length = w->queue_length - 1;
        next->hash_next = w->hash_next;
        *at = next;
        next->state = ADMIT_GRANTING;
    }
    w->state = ADMIT_NONE;
    pthread_mutex_unlock(&shard->mutex);
    if (next != NULL) {
        sw_loop_post(next->loop, &next->post);
    }
}

bool sw_admit__cancel(struct sw_admit *a, struct sw_admit_wait *w)
{
    struct shard *shard;
    struct sw_admit_wait **bucket = bucket_of(a, &w->key, &shard), **at;
    bool out = false;

    pthread_mutex_lock(&shard->mutex);
    if (w->state == ADMIT_WAITING) {
        at = find(bucket, &w->key);
        SW_ASSERT(*at != NULL);
        SW_ASSERT((*at)->queue_length > 0);
        (*at)->queue_length--;
        sw_link_remove(&w->link);
        w->state = ADMIT_NONE;
        out = true;
    }
    pthread_mutex_unlock(&shard->mutex);
    return out;
}
