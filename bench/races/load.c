/* bench/races/load.c - many clients at once, each with its own requests, one after the other.
 *
 *     load PORT CLIENTS KEYS REQUESTS SEED <requests >result.json
 *
 * Standard input holds CLIENTS x KEYS requests, client by client, key by key, each as
 * "LENGTH\nBYTES". Client c sends REQUESTS of them, the same number for every key, in an order of
 * its own, on a connection that is kept while the server keeps it. An answer of 2xx is counted as
 * acknowledged. A refusal (409, 423, 429, 503: the server says that nothing was done) is sent again
 * after a short random pause, and its waiting counts. Whatever else happens is counted as failed
 * and not sent again: nobody knows whether it was done.
 *
 * One thread, epoll, loopback only. A measuring aid: it reads what the measured servers write, and
 * gives up on anything it does not understand.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define INPUT_BYTES 16384         /* of one answer, head and body */
#define STALL_NS    60000000000ll /* no answer to anybody: the run is given up */
#define PAUSE_NS    1000000ll     /* before a refused request is sent again, doubled up to x 32 */
#define STATUS_MAX  600

struct request {
    char *bytes;
    size_t len;
};

struct client {
    int fd; /* -1: no connection */
    bool busy;
    uint16_t *order;   /* keys, one for each request */
    size_t at;         /* of order */
    size_t sent;       /* bytes of the request */
    int64_t began_ns;  /* first try of the request */
    int64_t wake_ns;   /* 0: not pausing */
    unsigned refusals; /* of this request */
    size_t in_len;
    char in[INPUT_BYTES + 1];
};

static struct {
    unsigned clients, keys, requests;
    struct sockaddr_in addr;
    struct request *request; /* client by client */
    struct client *client;
    int epoll;
    uint32_t *latency_us;
    size_t latencies;
    uint64_t acknowledged, refused, failed, broken_off;
    uint64_t *acknowledged_of; /* a key */
    uint64_t status[STATUS_MAX];
    unsigned running, pausing;
    int64_t answered_ns; /* the last one */
    uint64_t random;
} load;

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* splitmix64: the same seed makes the same run. */
static uint64_t random_next(void)
{
    uint64_t z = load.random += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, errno != 0 ? strerror(errno) : "not understood");
    exit(2);
}

static void *zeroed(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (memory == NULL) {
        die("memory");
    }
    return memory;
}

static void read_requests(void)
{
    load.request = zeroed((size_t)load.clients * load.keys, sizeof(*load.request));
    for (size_t i = 0; i < (size_t)load.clients * load.keys; i++) {
        struct request *r = &load.request[i];

        if (scanf("%zu", &r->len) != 1 || getchar() != '\n' || r->len > INPUT_BYTES) {
            die("standard input");
        }
        r->bytes = zeroed(r->len, 1);
        if (fread(r->bytes, 1, r->len, stdin) != r->len) {
            die("standard input");
        }
    }
}

/* Every key equally often, shuffled. */
static void make_order(struct client *c)
{
    c->order = zeroed(load.requests, sizeof(*c->order));
    for (unsigned i = 0; i < load.requests; i++) {
        c->order[i] = (uint16_t)(i % load.keys);
    }
    for (unsigned i = load.requests - 1; i > 0; i--) {
        unsigned j = (unsigned)(random_next() % (i + 1));
        uint16_t swapped = c->order[i];

        c->order[i] = c->order[j];
        c->order[j] = swapped;
    }
}

static void client_close(struct client *c)
{
    if (c->fd >= 0) {
        close(c->fd);
        c->fd = -1;
    }
}

static bool client_connect(struct client *c)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    int on = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        die("socket");
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(c->fd, (struct sockaddr *)&load.addr, sizeof(load.addr)) != 0 &&
        errno != EINPROGRESS) {
        client_close(c);
        return false;
    }
    if (epoll_ctl(load.epoll, EPOLL_CTL_ADD, c->fd, &event) != 0) {
        die("epoll_ctl");
    }
    return true;
}

static const struct request *request_of(const struct client *c)
{
    return &load.request[(size_t)(c - load.client) * load.keys + c->order[c->at]];
}

static void client_pause(struct client *c)
{
    int64_t most = PAUSE_NS << (c->refusals < 6 ? c->refusals : 6) >> 1;

    c->refusals++;
    c->busy = false;
    c->wake_ns = now_ns() + most / 2 + (int64_t)(random_next() % (uint64_t)most);
    load.pausing++;
}

static void client_send(struct client *c)
{
    const struct request *r = request_of(c);

    while (c->sent < r->len) {
        ssize_t n = send(c->fd, r->bytes + c->sent, r->len - c->sent, MSG_NOSIGNAL);

        if (n < 0) {
            return; /* not connected yet, no room, or an error that reading will tell */
        }
        c->sent += (size_t)n;
    }
}

static void client_start(struct client *c)
{
    c->busy = true;
    c->sent = 0;
    c->in_len = 0;
    if (c->fd < 0 && !client_connect(c)) {
        client_pause(c); /* nothing was sent */
        return;
    }
    client_send(c);
}

/* The request is over, one way or the other. */
static void client_next(struct client *c)
{
    c->busy = false;
    c->refusals = 0;
    if (++c->at == load.requests) {
        client_close(c);
        load.running--;
        return;
    }
    c->began_ns = now_ns();
    client_start(c);
}

static void client_failed(struct client *c)
{
    bool sent_nothing = c->sent == 0;

    client_close(c);
    load.broken_off++;
    if (sent_nothing) {
        client_pause(c); /* refused before a byte went out: certainly not done */
        return;
    }
    load.failed++;
    client_next(c);
}

static void client_answered(struct client *c, unsigned status, bool keep)
{
    load.answered_ns = now_ns();
    if (!keep) {
        client_close(c);
    }
    load.status[status < STATUS_MAX ? status : 0]++;
    if (status == 409 || status == 423 || status == 429 || status == 503) {
        load.refused++;
        client_pause(c);
        return;
    }
    if (status >= 200 && status < 300) {
        load.acknowledged++;
        load.acknowledged_of[c->order[c->at]]++;
    } else {
        load.failed++;
    }
    load.latency_us[load.latencies++] = (uint32_t)((load.answered_ns - c->began_ns) / 1000);
    client_next(c);
}

/* The value of a field of the head, or NULL; lower-case name with its colon. */
static const char *field(const char *head, const char *name)
{
    for (const char *line = strstr(head, "\r\n"); line != NULL; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, strlen(name)) == 0) {
            line += 2 + strlen(name);
            return line + strspn(line, " ");
        }
    }
    return NULL;
}

/* Whether the whole answer is there; if so it is dealt with. */
static bool client_parse(struct client *c, bool ended)
{
    char *body;
    const char *value;
    unsigned status;
    size_t body_len;
    bool keep, whole;

    c->in[c->in_len] = '\0';
    body = strstr(c->in, "\r\n\r\n");
    if (body == NULL || sscanf(c->in, "HTTP/1.%*1[01] %3u", &status) != 1) {
        return false;
    }
    body[2] = '\0'; /* the head alone, ended by its last CRLF */
    body += 4;
    body_len = c->in_len - (size_t)(body - c->in);
    value = field(c->in, "connection:");
    keep = !ended && (value == NULL || strncasecmp(value, "close", 5) != 0) &&
           strncmp(c->in, "HTTP/1.1", 8) == 0;
    if ((value = field(c->in, "content-length:")) != NULL) {
        whole = body_len >= strtoul(value, NULL, 10);
    } else if (field(c->in, "transfer-encoding:") != NULL) {
        whole = (body_len >= 5 && strncmp(body, "0\r\n\r\n", 5) == 0) ||
                strstr(body, "\r\n0\r\n\r\n") != NULL;
    } else {
        whole = ended;
        keep = false;
    }
    body[-2] = '\r';
    if (whole) {
        client_answered(c, status, keep);
    }
    return whole;
}

static void client_read(struct client *c)
{
    while (c->fd >= 0 && c->busy) {
        ssize_t n = recv(c->fd, c->in + c->in_len, INPUT_BYTES - c->in_len, 0);

        if (n < 0 && (errno == EAGAIN || errno == ENOTCONN)) {
            return;
        }
        if (n > 0) {
            c->in_len += (size_t)n;
            if (!client_parse(c, false) && c->in_len == INPUT_BYTES) {
                die("an answer that is too long");
            }
        } else if (n < 0 || !client_parse(c, true)) {
            client_failed(c);
        }
    }
}

static void wake_clients(void)
{
    int64_t now = now_ns();

    for (unsigned i = 0; i < load.clients && load.pausing > 0; i++) {
        struct client *c = &load.client[i];

        if (c->wake_ns != 0 && c->wake_ns <= now) {
            c->wake_ns = 0;
            load.pausing--;
            client_start(c);
        }
    }
}

static void run(void)
{
    struct epoll_event events[256];

    for (unsigned i = 0; i < load.clients; i++) {
        load.client[i].began_ns = now_ns();
        client_start(&load.client[i]);
    }
    load.answered_ns = now_ns();
    while (load.running > 0) {
        int n = epoll_wait(load.epoll, events, 256, load.pausing > 0 ? 1 : 1000);

        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;

            if (c->fd >= 0 && c->busy) {
                client_send(c);
                client_read(c);
            } else if (c->fd >= 0 && (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
                client_close(c);
            }
        }
        wake_clients();
        if (now_ns() - load.answered_ns > STALL_NS) {
            errno = ETIMEDOUT;
            die("nobody is answered any more");
        }
    }
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static double latency_ms(double share)
{
    size_t i = (size_t)((double)load.latencies * share);

    return load.latencies == 0
               ? 0
               : load.latency_us[i < load.latencies ? i : load.latencies - 1] / 1000.0;
}

static void print_result(double seconds)
{
    qsort(load.latency_us, load.latencies, sizeof(*load.latency_us), by_value);
    printf("{\"acknowledged\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"failed\": %" PRIu64
           ", \"broken_off\": %" PRIu64 ", \"seconds\": %.3f, \"p50_ms\": %.3f, \"p99_ms\": %.3f, "
           "\"max_ms\": %.3f,\n \"acknowledged_of\": [",
           load.acknowledged, load.refused, load.failed, load.broken_off, seconds, latency_ms(0.5),
           latency_ms(0.99), latency_ms(1));
    for (unsigned i = 0; i < load.keys; i++) {
        printf("%s%" PRIu64, i > 0 ? ", " : "", load.acknowledged_of[i]);
    }
    printf("],\n \"statuses\": {");
    for (unsigned i = 0, first = 1; i < STATUS_MAX; i++) {
        if (load.status[i] > 0) {
            printf("%s\"%u\": %" PRIu64, first ? "" : ", ", i, load.status[i]);
            first = 0;
        }
    }
    printf("}}\n");
}

int main(int argc, char **argv)
{
    int64_t began_ns;

    if (argc != 6) {
        fprintf(stderr, "usage: load PORT CLIENTS KEYS REQUESTS SEED <requests\n");
        return 2;
    }
    load.addr = (struct sockaddr_in){.sin_family = AF_INET,
                                     .sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10)),
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    load.clients = (unsigned)strtoul(argv[2], NULL, 10);
    load.keys = (unsigned)strtoul(argv[3], NULL, 10);
    load.requests = (unsigned)strtoul(argv[4], NULL, 10);
    load.random = strtoul(argv[5], NULL, 10);
    if (load.clients == 0 || load.keys == 0 || load.keys > UINT16_MAX || load.requests == 0) {
        die("an argument");
    }
    read_requests();
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    load.client = zeroed(load.clients, sizeof(*load.client));
    load.latency_us = zeroed((size_t)load.clients * load.requests, sizeof(*load.latency_us));
    load.acknowledged_of = zeroed(load.keys, sizeof(*load.acknowledged_of));
    load.running = load.clients;
    for (unsigned i = 0; i < load.clients; i++) {
        load.client[i].fd = -1;
        make_order(&load.client[i]);
    }
    began_ns = now_ns();
    run();
    print_result((double)(now_ns() - began_ns) / 1e9);
    return 0;
}
