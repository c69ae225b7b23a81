/* bench/origin.c - the app behind every proxy of a measurement: one thread, epoll, one fixed
 * answer.
 *
 * A measuring aid, not an example: it looks for the end of a head and nothing else. With
 * Stateway-State-Info in the request and a path that begins with /update it answers with an update,
 * so that `session` can be measured too. Usage: origin PORT [BODY_BYTES]
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 65536
#define INPUT_BYTES     8192

static char input[CONNECTIONS_MAX][INPUT_BYTES]; /* touched only where a head arrives in parts */
static size_t input_len[CONNECTIONS_MAX];

static int listen_on(int port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                               .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 || listen(fd, 4096) != 0) {
        perror("origin: listen");
        exit(1);
    }
    return fd;
}

static char *compose(size_t body, const char *extra, size_t *ret_len)
{
    size_t cap = body + 512;
    char *text = malloc(cap);
    int n;

    if (text == NULL) {
        exit(1);
    }
    n = snprintf(text, cap,
                 "HTTP/1.1 200 OK\r\nServer: origin\r\nContent-Type: text/plain\r\n"
                 "Cache-Control: no-cache\r\n%sContent-Length: %zu\r\n\r\n",
                 extra, body);
    memset(text + n, 'x', body);
    *ret_len = (size_t)n + body;
    return text;
}

static void answer(int fd, const char *text, size_t len)
{
    while (len > 0) { /* answers are small beside the socket's buffer; large ones wait here */
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

        if (n < 0) {
            usleep(50);
            continue;
        }
        text += n;
        len -= (size_t)n;
    }
}

int main(int argc, char **argv)
{
    size_t body = argc > 2 ? strtoul(argv[2], NULL, 10) : 100, plain_len, update_len;
    char *plain = compose(body, "", &plain_len);
    char *update = compose(body,
                           "Stateway-Set: {\"cart\":[\"pen\",\"cup\",\"lamp\"],\"user\":\"alice\","
                           "\"n\":12345}\r\n",
                           &update_len);
    int listener, epoll = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN}, events[512];

    if (argc < 2) {
        fprintf(stderr, "usage: origin PORT [BODY_BYTES]\n");
        return 2;
    }
    listener = listen_on((int)strtol(argv[1], NULL, 10));
    ev.data.fd = listener;
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &ev);
    for (;;) {
        int count = epoll_wait(epoll, events, 512, -1);

        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            ssize_t n;
            char *end;

            if (fd == listener) {
                int on = 1, c = accept4(listener, NULL, NULL, SOCK_NONBLOCK);

                if (c >= 0 && c < CONNECTIONS_MAX) {
                    setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
                    input_len[c] = 0;
                    ev = (struct epoll_event){.events = EPOLLIN | EPOLLET, .data.fd = c};
                    epoll_ctl(epoll, EPOLL_CTL_ADD, c, &ev);
                } else if (c >= 0) {
                    close(c);
                }
                continue;
            }
            n = recv(fd, input[fd] + input_len[fd], INPUT_BYTES - 1 - input_len[fd], 0);
            if (n <= 0) {
                close(fd);
                continue;
            }
            input_len[fd] += (size_t)n;
            input[fd][input_len[fd]] = '\0';
            while ((end = strstr(input[fd], "\r\n\r\n")) != NULL) {
                size_t used = (size_t)(end + 4 - input[fd]);

                if (strstr(input[fd], "/update") != NULL && strstr(input[fd], "/update") < end) {
                    answer(fd, update, update_len);
                } else {
                    answer(fd, plain, plain_len);
                }
                memmove(input[fd], input[fd] + used, input_len[fd] - used + 1);
                input_len[fd] -= used;
            }
        }
    }
}
