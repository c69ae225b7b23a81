/* store/lmdb_file.c - the file before LMDB sees it.
 *
 * Room       store/. Nothing here overwrites anything; what is wrong is said for people.
 *
 * A file that was cut. LMDB maps it and would die of SIGBUS, so the last page number is compared
 * with the file's size. LMDB may count a last page that it never wrote (taken and dropped within
 * one transaction); so the committer makes the file longer than it can become *before* each
 * transaction: a short file has lost something.
 */
#include "store/lmdb_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the file -------------------------------------------------------------------------------- */

/* LMDB's own layout (mdb.c: MDB_page, MDB_meta), version 1, on a 64-bit machine: pages 0 and 1 are
 * the two meta pages. */
enum {
    LM_FLAGS = 10,      /* of the page: 8 is P_META */
    LM_MAGIC = 16,      /* 0xBEEFC0DE */
    LM_VERSION = 20,    /* 1 */
    LM_PAGE_BYTES = 40, /* kept in the free list's description */
    LM_LAST_PAGE = 136,
    LM_TXN = 144,
    LM_META_BYTES = 152,
};

static uint32_t host_u32(const unsigned char *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v)); /* LMDB writes the machine's own byte order */
    return v;
}

static uint64_t host_u64(const unsigned char *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static bool meta_page(const unsigned char *p)
{
    return (p[LM_FLAGS] & 8) != 0 && host_u32(p + LM_MAGIC) == 0xBEEFC0DEu;
}

/* SW_E_NOT_FOUND: there is no file yet. */
enum sw_err sw_lmdb__file_check(const char *path, const char **ret_why)
{
    unsigned char first[LM_META_BYTES], second[LM_META_BYTES];
    const unsigned char *newest;
    SW_CLEANUP(sw_store__fd_close)
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    uint32_t page_bytes;
    uint64_t pages;
    struct stat st;

    if (fd < 0) {
        return errno == ENOENT ? SW_E_NOT_FOUND
                               : sw_store__refuse(sw_lmdb__err(errno), ret_why, "store %s: %s",
                                                  path, strerror(errno));
    }
    if (fstat(fd, &st) != 0) {
        return sw_store__refuse(SW_E_STORE_IO, ret_why, "store %s: %s", path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        return sw_store__refuse(SW_E_STORE_FORMAT, ret_why, "store %s: no regular file", path);
    }
    if (st.st_size == 0) {
        return sw_store__refuse(
            SW_E_STORE_CORRUPT, ret_why,
            "store %s: the file is empty, its content is lost; restore it from a backup, or "
            "remove it to begin with an empty store",
            path);
    }
    if (pread(fd, first, sizeof(first), 0) != sizeof(first) || !meta_page(first)) {
        return sw_store__refuse(
            SW_E_STORE_FORMAT, ret_why,
            "store %s: not a store of stateway (no LMDB file); it was left as it is; name "
            "another folder",
            path);
    }
    if (host_u32(first + LM_VERSION) != 1) {
        return sw_store__refuse(
            SW_E_STORE_FORMAT, ret_why,
            "store %s: written by another version of LMDB (%u); it was left as it is; name "
            "another folder",
            path, host_u32(first + LM_VERSION));
    }
    page_bytes = host_u32(first + LM_PAGE_BYTES);
    if (page_bytes < 512 || page_bytes > 65536 || (page_bytes & (page_bytes - 1)) != 0 ||
        pread(fd, second, sizeof(second), page_bytes) != sizeof(second) || !meta_page(second) ||
        host_u32(second + LM_VERSION) != 1) {
        return sw_store__refuse(
            SW_E_STORE_CORRUPT, ret_why,
            "store %s: the head of the file is damaged; restore it from a backup, or move it "
            "away to begin with an empty store",
            path);
    }
    newest = host_u64(first + LM_TXN) > host_u64(second + LM_TXN) ? first : second;
    pages = host_u64(newest + LM_LAST_PAGE) + 1;
    if (pages > (uint64_t)st.st_size / page_bytes) {
        return sw_store__refuse(
            SW_E_STORE_CORRUPT, ret_why,
            "store %s: the file is cut: %llu bytes, it had at least %llu; restore it from a "
            "backup, or move it away to begin with an empty store",
            path, (unsigned long long)st.st_size, (unsigned long long)pages * page_bytes);
    }
    return SW_OK;
}

enum sw_err sw_lmdb__meta_check(const char *path, const struct lmdb_meta *m, const char **ret_why)
{
    if (!m->ours) {
        return sw_store__refuse(
            SW_E_STORE_FORMAT, ret_why,
            "store %s: an LMDB file, but not a store of stateway; name another folder", path);
    }
    if (m->format < LMDB_FORMAT_FIRST || m->format > LMDB_FORMAT) {
        return sw_store__refuse(
            SW_E_STORE_FORMAT, ret_why,
            "store %s: format %u, this stateway knows formats %u to %u; use the stateway "
            "that wrote it, or name another folder",
            path, m->format, LMDB_FORMAT_FIRST, LMDB_FORMAT);
    }
    if (m->bytes != LMDB_META_BYTES) {
        return sw_store__refuse(
            SW_E_STORE_CORRUPT, ret_why,
            "store %s: its description is damaged; restore it from a backup, or name "
            "another folder",
            path);
    }
    return SW_OK;
}
