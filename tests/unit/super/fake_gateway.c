/* unit/super/fake_gateway.c - see fake_gateway.h. */
#include "fake_gateway.h"

#include "app/control.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

struct fake {
    int fd;
    bool announced, deaf;
    uint64_t last;
    uint32_t slot;
};

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    char line[512];
    va_list ap;
    int n;
    ssize_t ignored;

    va_start(ap, fmt);
    n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
    va_end(ap);
    line[n] = '\n';
    ignored = write(STDOUT_FILENO, line, (size_t)n + 1);
    (void)ignored;
}

static void fake_send(struct fake *f, struct sw_control m)
{
    m.version = m.version == 0 ? SW_CONTROL_VERSION : m.version;
    while (send(f->fd, &m, sizeof(m), MSG_NOSIGNAL) < 0 && errno == EAGAIN) {
        struct pollfd p = {.fd = f->fd, .events = POLLOUT};

        poll(&p, 1, -1);
    }
}

static struct sw_control fake_receive(struct fake *f)
{
    static const char *const names[] = {"?",       "HELLO",  "START",    "STOP",
                                        "KILL",    "READY",  "INSTANCE", "SYNCED",
                                        "STARTED", "EXITED", "SHUTDOWN", "RELOAD"};
    struct pollfd p = {.fd = f->fd, .events = POLLIN};
    struct sw_control m;
    ssize_t n;

    do {
        poll(&p, 1, -1);
        n = recv(f->fd, &m, sizeof(m), 0);
    } while (n < 0 && errno == EAGAIN);
    if (n != (ssize_t)sizeof(m) || m.version != SW_CONTROL_VERSION) {
        say("G lost the supervisor");
        _exit(9);
    }
    say("G %s app=%u slot=%u pid=%d status=%d address=%s mine=%d", names[m.kind], m.app, m.slot,
        m.pid, m.status, m.address, m.incarnation == f->last);
    return m;
}

static void fake_start(struct fake *f, uint32_t app)
{
    f->slot++;
    f->last = ((uint64_t)getpid() << 32) | f->slot;
    fake_send(f,
              (struct sw_control){
                  .kind = SW_CONTROL_START, .app = app, .slot = f->slot, .incarnation = f->last});
}

static void fake_invalid(struct fake *f, char step)
{
    struct sw_control m = {.kind = SW_CONTROL_START, .slot = 1, .incarnation = 77};

    switch (step) {
    case 'V':
        m.version = 99;
        break;
    case 'K':
        m.kind = SW_CONTROL_INSTANCE;
        break;
    case 'A':
        m.app = 99;
        break;
    case 'L':
        m.slot = 0;
        break;
    case 'Z':
        m.incarnation = 0;
        break;
    case 'D':
        m.incarnation = f->last;
        break;
    case 'I':
        m.kind = SW_CONTROL_STOP;
        m.incarnation = 0;
        break;
    case 'G':
        m.kind = SW_CONTROL_STOP;
        m.grace_ms = UINT32_MAX;
        break;
    default:
        send(f->fd, "bytes", 5, MSG_NOSIGNAL);
        return;
    }
    fake_send(f, m);
}

static void fake_step(struct fake *f, const char **script)
{
    char step = *(*script)++;

    switch (step) {
    case 'h':
        fake_send(f, (struct sw_control){.kind = SW_CONTROL_HELLO});
        for (;;) {
            struct sw_control m = fake_receive(f);

            if (m.kind == SW_CONTROL_SYNCED) {
                break;
            }
            f->announced = f->announced || m.kind == SW_CONTROL_INSTANCE;
            f->last = m.incarnation;
        }
        break;
    case 's':
        if (!f->announced) {
            fake_start(f, (uint32_t)(**script - '0'));
        }
        (*script)++;
        break;
    case 'w':
        if (!f->announced) {
            fake_receive(f);
        }
        break;
    case 'r':
        fake_send(f, (struct sw_control){.kind = SW_CONTROL_READY});
        break;
    case 't':
        fake_send(f, (struct sw_control){
                         .kind = SW_CONTROL_STOP, .incarnation = f->last, .grace_ms = 200});
        break;
    case 'k':
        fake_send(f, (struct sw_control){.kind = SW_CONTROL_KILL, .incarnation = f->last});
        break;
    case 'F':
        for (uint32_t i = 0; i < 2000; i++) {
            fake_start(f, 0);
            f->slot = f->slot % SW_CONTROL_INSTANCES;
            f->last += (uint64_t)i << 16;
        }
        break;
    case 'p':
        poll(NULL, 0, 300);
        break;
    case 'e':
        _exit(*(*script)++ - '0');
    case 'i':
        f->deaf = true;
        break;
    default:
        fake_invalid(f, step);
        break;
    }
}

/* Are the descriptors what the command line says, and is nothing else open? */
static void fake_check_fds(const char *list, const char *admin)
{
    int listening = 0, others = 0;

    for (int fd = 3; fd < 200; fd++) {
        int on = 0;
        socklen_t len = sizeof(on);
        struct stat st;

        if (fstat(fd, &st) != 0) {
            continue;
        }
        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on != 0) {
            listening++;
        } else {
            others++;
        }
    }
    say("G fds listen=%s admin=%s listening=%d others=%d", list, admin, listening, others);
}

int fake_gateway_main(int argc, char **argv)
{
    struct fake f = {.fd = -1};
    const char *list = "-", *admin = "-", *script;
    char text[256] = "";
    int config_fd = -1;

    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--control-fd") == 0) {
            f.fd = (int)strtol(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--config-fd") == 0) {
            config_fd = (int)strtol(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--listen-fds") == 0) {
            list = argv[i + 1];
        } else if (strcmp(argv[i], "--admin-fd") == 0) {
            admin = argv[i + 1];
        }
    }
    if (pread(config_fd, text, sizeof(text) - 1, 0) < 0 || write(config_fd, "x", 1) >= 0) {
        say("G the configuration is not a sealed file");
        return 9;
    }
    say("G pid=%d", (int)getpid());
    fake_check_fds(list, admin);
    script = text;
    while (*script != '\0') {
        fake_step(&f, &script);
    }
    for (;;) {
        if (fake_receive(&f).kind == SW_CONTROL_SHUTDOWN && !f.deaf) {
            return 0;
        }
    }
}
