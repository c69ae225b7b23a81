/* crypto/random.c - bytes from the kernel, a buffer at a time.
 *
 * Ids of 32 bytes are made on every new session: one system call for many of them. A byte that was
 * handed out is wiped from the buffer, and a forked child begins with an empty one.
 */
#include "crypto/crypto.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/rng.h"

#define BUFFER_BYTES 1024

static _Thread_local struct {
    uint8_t bytes[BUFFER_BYTES];
    size_t left;         /* of bytes, at its end */
    unsigned generation; /* of forks, when it was filled */
} buffer;

static atomic_uint fork_generation = 1;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Tests only: the whole process draws from one seeded stream. */
static struct {
    atomic_bool on;
    pthread_mutex_t lock;
    struct sw_rng rng;
} seeded = {false, PTHREAD_MUTEX_INITIALIZER, {{0}}};

static void forked(void)
{
    atomic_fetch_add(&fork_generation, 1);
}

static void setup(void)
{
    int rc = pthread_atfork(NULL, NULL, forked);

    SW_ASSERT(rc == 0);
}

static void kernel_bytes(uint8_t *out, size_t len)
{
    while (len > 0) {
        ssize_t n = getrandom(out, len, 0);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        SW_ASSERT(n > 0); /* no generator: no ids, no keys, no service */
        out += n;
        len -= (size_t)n;
    }
}

static void seeded_bytes(uint8_t *out, size_t len)
{
    pthread_mutex_lock(&seeded.lock);
    while (len > 0) {
        uint64_t word = sw_rng_u64(&seeded.rng);
        size_t n = SW_MIN(len, sizeof(word));

        memcpy(out, &word, n);
        out += n;
        len -= n;
    }
    pthread_mutex_unlock(&seeded.lock);
}

void sw_random(void *out, size_t len)
{
    unsigned generation;
    uint8_t *from;

    if (atomic_load_explicit(&seeded.on, memory_order_acquire)) {
        seeded_bytes(out, len);
        return;
    }
    if (len > BUFFER_BYTES / 4) {
        kernel_bytes(out, len);
        return;
    }
    pthread_once(&once, setup);
    generation = atomic_load_explicit(&fork_generation, memory_order_relaxed);
    if (buffer.left < len || buffer.generation != generation) {
        kernel_bytes(buffer.bytes, BUFFER_BYTES);
        buffer.left = BUFFER_BYTES;
        buffer.generation = generation;
    }
    from = buffer.bytes + BUFFER_BYTES - buffer.left;
    memcpy(out, from, len);
    explicit_bzero(from, len);
    buffer.left -= len;
}

void sw_random_seed_for_tests(uint64_t seed)
{
    pthread_mutex_lock(&seeded.lock);
    sw_rng_seed(&seeded.rng, seed);
    pthread_mutex_unlock(&seeded.lock);
    atomic_store_explicit(&seeded.on, true, memory_order_release);
}
