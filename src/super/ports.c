/* super/ports.c - the gateway's listening sockets, and ports for instances. */
#include "super/super_priv.h"

#include <errno.h>
#include <sched.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 4096 /* the kernel caps it at net.core.somaxconn */

uint64_t sw_super__now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * SW_NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t sw_super__random(void)
{
    uint64_t value;
    ssize_t n;

    do {
        n = getrandom(&value, sizeof(value), 0);
    } while (n < 0 && errno == EINTR);
    SW_ASSERT(n == (ssize_t)sizeof(value));
    return value;
}

unsigned sw_super_workers_auto(void)
{
    cpu_set_t set;
    int count = 1;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        count = CPU_COUNT(&set);
    }
    return (unsigned)SW_MAX(1, SW_MIN(count, SW_WORKERS_AUTO_MAX));
}

/* ---- ports for instances --------------------------------------------------------------------- */

/* The any-address collides with a socket on any address, the way an app that listens on all of
 * them would; [::] covers IPv4 too. Nothing listens, so nobody can connect meanwhile. */
static bool port_free(uint16_t port)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, off = 0, rc, fd;

    fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)); /* ignores TIME_WAIT */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
        rc = bind(fd, (struct sockaddr *)&six, sizeof(six));
        if (rc == 0 || errno == EADDRINUSE) {
            close(fd);
            return rc == 0;
        }
        close(fd); /* a machine without IPv6 */
    }
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    rc = bind(fd, (struct sockaddr *)&four, sizeof(four));
    close(fd);
    return rc == 0;
}

uint16_t sw_super__port_take(struct sw_super_ports *p)
{
    uint32_t start = (uint32_t)(sw_super__random() % SW_PORT_COUNT);

    for (uint32_t i = 0; i < SW_PORT_COUNT; i++) {
        uint32_t at = (start + i) % SW_PORT_COUNT;
        uint16_t port = (uint16_t)(SW_PORT_FIRST + at);

        if (p->used[at] == 0 && port_free(port)) {
            p->used[at] = 1;
            return port;
        }
    }
    return 0;
}

void sw_super__port_give(struct sw_super_ports *p, uint16_t port)
{
    if (port != 0) {
        SW_ASSERT(port >= SW_PORT_FIRST);
        SW_ASSERT(port < SW_PORT_FIRST + SW_PORT_COUNT);
        SW_ASSERT(p->used[port - SW_PORT_FIRST] == 1);
        p->used[port - SW_PORT_FIRST] = 0;
    }
}

/* ---- listeners ------------------------------------------------------------------------------- */

/* Two programs of one user that both ask for SO_REUSEPORT share an address silently, and each gets
 * half of the visitors. Without the option the kernel tells. */
static enum sw_err listen_probe(const struct sw_addr *addr)
{
    int one = 1, error = 0;
    int fd = socket(addr->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return errno == EAFNOSUPPORT ? SW_E_UNSUPPORTED : SW_E_NO_FILES;
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (addr->sa.sa_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    }
    if (bind(fd, &addr->sa, addr->len) != 0) {
        error = errno;
    }
    close(fd);
    switch (error) {
    case 0:
        return SW_OK;
    case EADDRINUSE:
        return SW_E_ADDRESS_IN_USE;
    case EACCES:
        return SW_E_PERMISSION;
    case EADDRNOTAVAIL:
        return SW_E_NOT_FOUND;
    default:
        return SW_E_SYSTEM;
    }
}

static const char *listen_remedy(enum sw_err err, const struct sw_addr *addr)
{
    if (addr->sa.sa_family == AF_UNIX) {
        return err == SW_E_ADDRESS_IN_USE
                   ? "another process answers on this socket: stop it, or choose another path"
                   : "is the folder there, and writable for this user?";
    }
    switch (err) {
    case SW_E_ADDRESS_IN_USE:
        return "another process listens there: stop it, or choose another address";
    case SW_E_PERMISSION:
        return "ports below 1024 need the capability CAP_NET_BIND_SERVICE";
    case SW_E_NOT_FOUND:
        return "no network interface has this address";
    case SW_E_UNSUPPORTED:
        return "this machine has no such network";
    default:
        return "";
    }
}

static enum sw_err listen_one(const struct sw_addr *wanted, struct sw_addr *bound, size_t workers,
                              int *fds)
{
    bool is_unix = wanted->sa.sa_family == AF_UNIX;
    enum sw_err err = SW_OK;

    *bound = *wanted;
    if (!is_unix && sw_addr_port(wanted) != 0) {
        err = listen_probe(wanted);
    }
    for (size_t i = 0; err == SW_OK && i < workers; i++) {
        if (is_unix && i > 0) {
            fds[i] = fds[0];
            continue;
        }
        err = sw_listen_socket(bound, !is_unix, BACKLOG, &fds[i]);
        if (err == SW_OK && i == 0 && !is_unix) {
            bound->len = sizeof(bound->un); /* port 0: the others follow where the first went */
            if (getsockname(fds[0], &bound->sa, &bound->len) != 0) {
                err = SW_E_SYSTEM;
            }
        }
    }
    if (err != SW_OK) {
        char text[SW_ADDR_TEXT_MAX];
        struct sw_slice t = sw_addr_text(wanted, text);
        const char *remedy = listen_remedy(err, wanted);

        bound->len = 0;
        sw_log(SW_LOG_ERROR, "cannot listen on %.*s: %s%s%s", SW_SARG(t), sw_err_text(err),
               *remedy == '\0' ? "" : "; ", remedy);
    }
    return err;
}

enum sw_err sw_super__listen_open(struct sw_super_listen *l, const struct sw_config *config,
                                  size_t workers)
{
    enum sw_err err = SW_OK;

    SW_ASSERT(workers > 0);
    memset(l, 0, sizeof(*l));
    l->admin_fd = -1;
    l->workers = workers;
    l->fds = (int *)malloc((SW_LISTEN_MAX * workers) * sizeof(int));
    if (l->fds == NULL) {
        return SW_E_NO_MEMORY;
    }
    for (size_t i = 0; i < SW_LISTEN_MAX * workers; i++) {
        l->fds[i] = -1;
    }
    SW_ASSERT(config->listen_count <= SW_LISTEN_MAX);
    for (size_t i = 0; err == SW_OK && i < config->listen_count; i++) {
        err = listen_one(&config->listen[i].addr, &l->bound[i], workers, l->fds + i * workers);
        l->count = i + 1;
    }
    if (err == SW_OK && config->admin_addr.len > 0) {
        err = listen_one(&config->admin_addr, &l->bound[SW_LISTEN_MAX], 1, &l->admin_fd);
    }
    if (err != SW_OK) {
        sw_super__listen_close(l);
    }
    return err;
}

/* A path that another process has taken over meanwhile is not ours to remove: its inode differs
 * from that of the name our socket was bound to, which only the path itself could tell. So we ask
 * whether somebody else answers there, after our own socket is closed. */
static void unix_remove(const struct sw_addr *addr)
{
    struct stat st;
    int fd, rc;

    if (addr->len == 0 || addr->sa.sa_family != AF_UNIX || addr->un.sun_path[0] == '\0') {
        return;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return;
    }
    rc = connect(fd, &addr->sa, addr->len);
    if (rc != 0 && errno == ECONNREFUSED && lstat(addr->un.sun_path, &st) == 0 &&
        S_ISSOCK(st.st_mode)) {
        unlink(addr->un.sun_path);
    }
    close(fd);
}

void sw_super__listen_close(struct sw_super_listen *l)
{
    if (l->fds == NULL) {
        return;
    }
    for (size_t i = 0; i < l->count * l->workers; i++) {
        bool shared = i % l->workers > 0 && l->fds[i] == l->fds[i - 1];

        if (l->fds[i] >= 0 && !shared) {
            close(l->fds[i]);
        }
    }
    if (l->admin_fd >= 0) {
        close(l->admin_fd);
        l->admin_fd = -1;
    }
    for (size_t i = 0; i < SW_COUNTOF(l->bound); i++) {
        unix_remove(&l->bound[i]);
        l->bound[i].len = 0;
    }
    free(l->fds);
    l->fds = NULL;
}
