/* store/journal_crc.c - CRC-32C, by the processor's instruction where there is one. */
#include "store/journal_priv.h"

#if defined(__aarch64__)
#include <sys/auxv.h>
#endif

#define CRC_POLYNOMIAL 0x82f63b78u /* reflected */
#define CRC_TABLES     8u

static uint32_t tables[CRC_TABLES][256]; /* filled once */
static uint32_t (*chosen)(uint32_t crc, const unsigned char *p, size_t len);
static pthread_once_t once = PTHREAD_ONCE_INIT;

static uint64_t word_at(const unsigned char *p)
{
    uint64_t w;

    memcpy(&w, p, sizeof(w));
    return w;
}

/* Eight bytes a turn, by eight tables. Takes and gives the inverted sum. */
static uint32_t by_table(uint32_t crc, const unsigned char *p, size_t len)
{
    for (; len >= 8; p += 8, len -= 8) {
        uint32_t low = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                              (uint32_t)p[3] << 24);

        crc = tables[7][low & 0xff] ^ tables[6][low >> 8 & 0xff] ^ tables[5][low >> 16 & 0xff] ^
              tables[4][low >> 24] ^ tables[3][p[4]] ^ tables[2][p[5]] ^ tables[1][p[6]] ^
              tables[0][p[7]];
    }
    for (; len > 0; p++, len--) {
        crc = crc >> 8 ^ tables[0][(crc ^ *p) & 0xff];
    }
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t by_instruction(uint32_t crc,
                                                                 const unsigned char *p, size_t len)
{
    uint64_t sum = crc;

    for (; len >= 8; p += 8, len -= 8) {
        sum = __builtin_ia32_crc32di(sum, word_at(p));
    }
    for (; len > 0; p++, len--) {
        sum = __builtin_ia32_crc32qi((uint32_t)sum, *p);
    }
    return (uint32_t)sum;
}

static bool instruction_there(void)
{
    return __builtin_cpu_supports("sse4.2") != 0;
}
#elif defined(__aarch64__)
#define HWCAP_CRC32_BIT (1ul << 7) /* arm64's hwcap.h */

static uint32_t by_instruction(uint32_t crc, const unsigned char *p, size_t len)
{
    for (; len >= 8; p += 8, len -= 8) {
        __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word_at(p)));
    }
    for (; len > 0; p++, len--) {
        __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"((uint32_t)*p));
    }
    return crc;
}

static bool instruction_there(void)
{
    return (getauxval(AT_HWCAP) & HWCAP_CRC32_BIT) != 0;
}
#else
static uint32_t by_instruction(uint32_t crc, const unsigned char *p, size_t len)
{
    (void)word_at;
    return by_table(crc, p, len);
}

static bool instruction_there(void)
{
    return false;
}
#endif

static void choose(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;

        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (CRC_POLYNOMIAL & (0u - (crc & 1)));
        }
        tables[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++) {
        for (size_t t = 1; t < CRC_TABLES; t++) {
            uint32_t before = tables[t - 1][i];

            tables[t][i] = before >> 8 ^ tables[0][before & 0xff];
        }
    }
    chosen = instruction_there() ? by_instruction : by_table;
}

uint32_t sw_journal__crc(uint32_t crc, const void *bytes, size_t len)
{
    pthread_once(&once, choose);
    return ~chosen(~crc, bytes, len);
}

uint32_t sw_journal__crc_table(uint32_t crc, const void *bytes, size_t len)
{
    pthread_once(&once, choose);
    return ~by_table(~crc, bytes, len);
}
