/* http/date.c - IMF-fixdate without locale and time zone tables (RFC 9110, 5.6.7). */
#include "http/http_priv.h"

static void digits(char *out, unsigned value, unsigned count)
{
    while (count-- > 0) {
        out[count] = (char)('0' + value % 10);
        value /= 10;
    }
}

void sw_http_date(char out[29], int64_t unix_s)
{
    static const char days[] = "ThuFriSatSunMonTueWed"; /* 1970-01-01 was a Thursday */
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int64_t day, era;
    unsigned second, doe, yoe, doy, mp, month, year, dom;

    /* Years 0000 to 9999 have four digits. */
    unix_s = SW_MAX(SW_MIN(unix_s, INT64_C(253402300799)), INT64_C(-62167219200));
    day = unix_s / 86400 - (unix_s % 86400 < 0);
    second = (unsigned)(unix_s - day * 86400);

    /* Days to civil date: eras of 400 years that begin on March 1st (Howard Hinnant's algorithm).
     */
    era = (day + 719468) / 146097 - ((day + 719468) % 146097 < 0);
    doe = (unsigned)(day + 719468 - era * 146097);
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;
    dom = doy - (153 * mp + 2) / 5 + 1;
    month = mp < 10 ? mp + 2 : mp - 10; /* from 0 */
    year = (unsigned)(era * 400 + yoe + (month < 2));

    memcpy(out, "Thu, 00 Jan 0000 00:00:00 GMT", 29);
    memcpy(out, days + 3 * ((day % 7 + 7) % 7), 3);
    digits(out + 5, dom, 2);
    memcpy(out + 8, months + 3 * (size_t)month, 3);
    digits(out + 12, year, 4);
    digits(out + 17, second / 3600, 2);
    digits(out + 20, second / 60 % 60, 2);
    digits(out + 23, second % 60, 2);
}
