/* apps/shop/memory.c - a bounded table of visitors: hash chains and an order of last use
 * (memory.h). */
#include "memory.h"

#include "../frame.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define BUCKETS 4096u

struct visitor {
    struct visitor *chain;         /* same bucket; or the next free one */
    struct visitor *older, *newer; /* order of last use */
    char id[MEMORY_ID_BYTES + 1];
    struct shop_state state;
};

struct memory {
    pthread_mutex_t lock;
    uint64_t seed; /* so that nobody can choose ids that fall into one bucket */
    struct visitor *buckets[BUCKETS];
    struct visitor *oldest, *newest, *unused;
    struct visitor visitors[MEMORY_VISITORS];
};

static void random_fill(void *bytes, size_t count)
{
    if (getrandom(bytes, count, 0) != (ssize_t)count) {
        abort(); /* ids that can be guessed are worse than no shop */
    }
}

struct memory *memory_new(void)
{
    struct memory *memory = app_need(calloc(1, sizeof(*memory)));

    pthread_mutex_init(&memory->lock, NULL);
    random_fill(&memory->seed, sizeof(memory->seed));
    for (size_t i = 0; i < MEMORY_VISITORS; i++) {
        memory->visitors[i].chain = memory->unused;
        memory->unused = &memory->visitors[i];
    }
    return memory;
}

void memory_free(struct memory *memory)
{
    if (memory != NULL) {
        pthread_mutex_destroy(&memory->lock);
        free(memory);
    }
}

void memory_lock(struct memory *memory)
{
    pthread_mutex_lock(&memory->lock);
}

void memory_unlock(struct memory *memory)
{
    pthread_mutex_unlock(&memory->lock);
}

static struct visitor **bucket_of(struct memory *memory, const char *id)
{
    uint64_t hash = memory->seed;

    for (; *id != '\0'; id++) {
        hash = (hash ^ (unsigned char)*id) * 0x100000001b3u;
        hash ^= hash >> 29;
    }
    return &memory->buckets[hash % BUCKETS];
}

static void order_remove(struct memory *memory, struct visitor *v)
{
    *(v->older != NULL ? &v->older->newer : &memory->oldest) = v->newer;
    *(v->newer != NULL ? &v->newer->older : &memory->newest) = v->older;
}

static void order_append(struct memory *memory, struct visitor *v)
{
    v->older = memory->newest;
    v->newer = NULL;
    *(memory->newest != NULL ? &memory->newest->newer : &memory->oldest) = v;
    memory->newest = v;
}

/* The link that points at the visitor, or at the NULL where it would be. */
static struct visitor **link_of(struct memory *memory, const char *id)
{
    struct visitor **link = bucket_of(memory, id);

    while (*link != NULL && strcmp((*link)->id, id) != 0) {
        link = &(*link)->chain;
    }
    return link;
}

struct shop_state *memory_find(struct memory *memory, const char *id)
{
    struct visitor *v = *link_of(memory, id);

    if (v == NULL) {
        return NULL;
    }
    order_remove(memory, v);
    order_append(memory, v);
    return &v->state;
}

void memory_remove(struct memory *memory, const char *id)
{
    struct visitor **link = link_of(memory, id);
    struct visitor *v = *link;

    if (v != NULL) {
        *link = v->chain;
        order_remove(memory, v);
        v->chain = memory->unused;
        memory->unused = v;
    }
}

void memory_put(struct memory *memory, const char *id, const struct shop_state *state)
{
    struct shop_state *known = memory_find(memory, id);
    struct visitor **bucket = bucket_of(memory, id);
    struct visitor *v;

    if (known != NULL) {
        *known = *state;
        return;
    }
    if (memory->unused == NULL) {
        memory_remove(memory, memory->oldest->id);
    }
    v = memory->unused;
    if (v == NULL) {
        abort(); /* a full table has an oldest visitor, and he has just made room */
    }
    memory->unused = v->chain;
    memcpy(v->id, id, MEMORY_ID_BYTES + 1);
    v->state = *state;
    v->chain = *bucket;
    *bucket = v;
    order_append(memory, v);
}

bool memory_id_valid(const char *id)
{
    return strlen(id) == MEMORY_ID_BYTES && strspn(id, "0123456789abcdef") == MEMORY_ID_BYTES;
}

void memory_id_new(char ret_id[MEMORY_ID_BYTES + 1])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char bytes[MEMORY_ID_BYTES / 2];

    random_fill(bytes, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        ret_id[2 * i] = digits[bytes[i] >> 4];
        ret_id[2 * i + 1] = digits[bytes[i] & 15];
    }
    ret_id[MEMORY_ID_BYTES] = '\0';
}
