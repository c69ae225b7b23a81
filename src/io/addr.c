/* io/addr.c - addresses as text and back.
 *
 * Room       io/. Blocks only where names are allowed: at start and at reload.
 */
#include <arpa/inet.h>
#include <netdb.h>

#include "base/out.h"
#include "io/io_priv.h"

#define HOST_TEXT_MAX 256 /* a DNS name has at most 253 characters */

static enum sw_err parse_unix(struct sw_slice path, struct sw_addr *ret_addr)
{
    struct sw_addr a = {.un = {.sun_family = AF_UNIX}};

    /* One byte is for the NUL at the end; NUL inside would be cut by the kernel. */
    if (path.len == 0 || path.len >= sizeof(a.un.sun_path) ||
        memchr(path.ptr, 0, path.len) != NULL) {
        return SW_E_SYNTAX;
    }
    memcpy(a.un.sun_path, path.ptr, path.len);
    a.len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + path.len + 1);
    if (path.ptr[0] == '@') { /* the abstract name space: no file, no NUL at the end */
        a.un.sun_path[0] = '\0';
        a.len--;
    }
    *ret_addr = a;
    return SW_OK;
}

static enum sw_err parse_name(const char *host, uint16_t port, struct sw_addr *ret_addr)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
    struct sw_addr a = {.len = 0};

    if (getaddrinfo(host, NULL, &hints, &list) != 0) {
        return SW_E_NOT_FOUND;
    }
    for (const struct addrinfo *i = list; i != NULL && a.len == 0; i = i->ai_next) {
        if (i->ai_family == AF_INET && i->ai_addrlen == sizeof(a.in)) {
            memcpy(&a.in, i->ai_addr, sizeof(a.in));
            a.in.sin_port = htons(port);
            a.len = sizeof(a.in);
        } else if (i->ai_family == AF_INET6 && i->ai_addrlen == sizeof(a.in6)) {
            memcpy(&a.in6, i->ai_addr, sizeof(a.in6));
            a.in6.sin6_port = htons(port);
            a.len = sizeof(a.in6);
        }
    }
    freeaddrinfo(list);
    if (a.len == 0) {
        return SW_E_NOT_FOUND;
    }
    *ret_addr = a;
    return SW_OK;
}

/* Letters, digits, '-', '.' and '_': what is looked up, so that nothing else reaches the resolver.
 */
static bool is_name(struct sw_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '.' || c == '_')) {
            return false;
        }
    }
    return s.len > 0;
}

enum sw_err sw_addr_parse(struct sw_slice text, bool allow_names, struct sw_addr *ret_addr)
{
    struct sw_addr a = {.len = 0};
    struct sw_slice host, port_text;
    char host_z[HOST_TEXT_MAX];
    uint64_t port;
    bool v6 = false;

    SW_ASSERT(ret_addr != NULL);
    if (sw_slice_starts(text, SW_S("unix:"))) {
        return parse_unix(sw_slice_tail(text, 5), ret_addr);
    }
    if (sw_slice_starts(text, SW_S("["))) {
        size_t end = sw_slice_find(text, ']');

        if (end == text.len) {
            return SW_E_SYNTAX;
        }
        host = sw_slice_of(text.ptr + 1, end - 1);
        port_text = sw_slice_tail(text, end + 1);
        if (!sw_slice_starts(port_text, SW_S(":"))) {
            return SW_E_SYNTAX;
        }
        port_text = sw_slice_tail(port_text, 1);
        v6 = true;
    } else if (!sw_slice_cut(text, ':', &host, &port_text)) {
        return SW_E_SYNTAX;
    }
    if (host.len == 0 || host.len >= sizeof(host_z) || memchr(host.ptr, 0, host.len) != NULL ||
        port_text.len > 5 || !sw_slice_u64(port_text, &port) || port > UINT16_MAX) {
        return SW_E_SYNTAX;
    }
    memcpy(host_z, host.ptr, host.len);
    host_z[host.len] = '\0';
    if (v6) {
        if (inet_pton(AF_INET6, host_z, &a.in6.sin6_addr) != 1) {
            return SW_E_SYNTAX;
        }
        a.in6.sin6_family = AF_INET6;
        a.in6.sin6_port = htons((uint16_t)port);
        a.len = sizeof(a.in6);
        *ret_addr = a;
        return SW_OK;
    }
    if (inet_pton(AF_INET, host_z, &a.in.sin_addr) == 1) {
        a.in.sin_family = AF_INET;
        a.in.sin_port = htons((uint16_t)port);
        a.len = sizeof(a.in);
        *ret_addr = a;
        return SW_OK;
    }
    if (!allow_names || !is_name(host)) {
        return SW_E_SYNTAX;
    }
    return parse_name(host_z, (uint16_t)port, ret_addr);
}

/* As inet_ntop does, which goes by sprintf: each exchange asks for its peer's address. */
static void put_ipv4(const struct in_addr *ip, struct sw_out *out)
{
    uint8_t bytes[4];
    char text[16], *at = text;

    memcpy(bytes, ip, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        unsigned value = bytes[i];

        if (value >= 100) {
            *at++ = (char)('0' + value / 100);
        }
        if (value >= 10) {
            *at++ = (char)('0' + value / 10 % 10);
        }
        *at++ = (char)('0' + value % 10);
        *at++ = '.';
    }
    sw_out_put(out, text, (size_t)(at - text) - 1);
}

static void put_host(const struct sw_addr *addr, struct sw_out *out)
{
    char text[INET6_ADDRSTRLEN];

    if (addr->len == 0) {
        sw_out_lit(out, "unknown");
        return;
    }
    switch (addr->sa.sa_family) {
    case AF_INET:
        put_ipv4(&addr->in.sin_addr, out);
        return;
    case AF_INET6:
        if (inet_ntop(AF_INET6, &addr->in6.sin6_addr, text, sizeof(text)) != NULL) {
            sw_out_cstr(out, text);
        }
        return;
    case AF_UNIX:
        sw_out_lit(out, "unix");
        return;
    default:
        sw_out_lit(out, "unknown");
        return;
    }
}

struct sw_slice sw_addr_host(const struct sw_addr *addr, char buf[64])
{
    struct sw_out out = sw_out_init(buf, 64);

    SW_ASSERT(addr != NULL);
    put_host(addr, &out);
    SW_ASSERT(!out.overflowed);
    return sw_out_done(&out);
}

struct sw_slice sw_addr_text(const struct sw_addr *addr, char buf[SW_ADDR_TEXT_MAX])
{
    struct sw_out out = sw_out_init(buf, SW_ADDR_TEXT_MAX);
    size_t at = offsetof(struct sockaddr_un, sun_path);

    SW_ASSERT(addr != NULL);
    if (addr->len == 0) {
        sw_out_lit(&out, "unknown");
    } else if (addr->sa.sa_family == AF_UNIX) {
        sw_out_lit(&out, "unix:");
        if (addr->len > at && addr->un.sun_path[0] == '\0') {
            sw_out_lit(&out, "@");
            sw_out_put(&out, addr->un.sun_path + 1, addr->len - at - 1);
        } else if (addr->len > at) {
            sw_out_put(&out, addr->un.sun_path, strnlen(addr->un.sun_path, addr->len - at));
        }
    } else {
        bool v6 = addr->sa.sa_family == AF_INET6;

        if (v6) {
            sw_out_lit(&out, "[");
        }
        put_host(addr, &out);
        if (v6) {
            sw_out_lit(&out, "]");
        }
        sw_out_lit(&out, ":");
        sw_out_u64(&out, sw_addr_port(addr));
    }
    SW_ASSERT(!out.overflowed);
    return sw_out_done(&out);
}

void sw_addr_set_port(struct sw_addr *addr, uint16_t port)
{
    if (addr->sa.sa_family == AF_INET) {
        addr->in.sin_port = htons(port);
    } else if (addr->sa.sa_family == AF_INET6) {
        addr->in6.sin6_port = htons(port);
    }
}

uint16_t sw_addr_port(const struct sw_addr *addr)
{
    SW_ASSERT(addr != NULL);
    if (addr->len == 0) {
        return 0;
    }
    switch (addr->sa.sa_family) {
    case AF_INET:
        return ntohs(addr->in.sin_port);
    case AF_INET6:
        return ntohs(addr->in6.sin6_port);
    default:
        return 0;
    }
}

void io__small_addr_set(union io_small_addr *small, const struct sw_addr *addr)
{
    memset(small, 0, sizeof(*small));
    if (addr->len == 0) {
        return;
    }
    switch (addr->sa.sa_family) {
    case AF_INET:
        small->in = addr->in;
        break;
    case AF_INET6:
        small->in6 = addr->in6;
        break;
    default:
        small->family = addr->sa.sa_family;
        break;
    }
}

void io__small_addr_get(const union io_small_addr *small, struct sw_addr *ret_addr)
{
    memset(ret_addr, 0, sizeof(*ret_addr));
    switch (small->family) {
    case AF_UNSPEC:
        break;
    case AF_INET:
        ret_addr->in = small->in;
        ret_addr->len = sizeof(ret_addr->in);
        break;
    case AF_INET6:
        ret_addr->in6 = small->in6;
        ret_addr->len = sizeof(ret_addr->in6);
        break;
    default:
        ret_addr->sa.sa_family = small->family;
        ret_addr->len = sizeof(sa_family_t);
        break;
    }
}
