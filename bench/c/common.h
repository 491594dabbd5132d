/* Shared by the three tools: clock, histogram, CPU pinning, chunked decoding.
 * Header only, so that each tool compiles from one source file. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))
#define NS_PER_S 1000000000ull
#define EVENTS_PER_WAIT 256
/* A response head longer than this is not one that these peers send. */
#define HEAD_MAX_BYTES 8192

/* In each event the send time stands after this marker, as STAMP_DIGITS decimal digits. */
#define STAMP_MARKER "\"t="
#define STAMP_DIGITS 20

static UNUSED void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static UNUSED uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static UNUSED uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
static UNUSED uint64_t own_cpu_ns(void) { return clock_ns(CLOCK_PROCESS_CPUTIME_ID); }

/* Pin this process to one CPU; a negative number leaves it where it is. */
static UNUSED void pin_to_cpu(int cpu) {
    if (cpu < 0)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        die("cannot pin to cpu %d: %s", cpu, strerror(errno));
}

static UNUSED double number_of(const char *text, const char *name, double low, double high) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= low && value <= high))
        die("--%s: want a number from %g to %g, not '%s'", name, low, high, text);
    return value;
}

static UNUSED void arm_timer_at(int timer_fd, uint64_t at_ns) {
    struct itimerspec when = {0};
    when.it_value.tv_sec = (time_t)(at_ns / NS_PER_S);
    when.it_value.tv_nsec = (long)(at_ns % NS_PER_S);
    if (at_ns != 0 && when.it_value.tv_sec == 0 && when.it_value.tv_nsec == 0)
        when.it_value.tv_nsec = 1;
    if (timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL) != 0)
        die("timerfd_settime: %s", strerror(errno));
}

/* Log-linear histogram of nanoseconds: 64 buckets per power of two, error under 1.6 %. */
#define SUB_BITS 6
#define SUB_COUNT (1 << SUB_BITS)
#define BUCKETS ((64 - SUB_BITS + 1) * SUB_COUNT)

struct histogram {
    uint64_t count, sum, min, max;
    uint64_t buckets[BUCKETS];
};

static UNUSED void histogram_add(struct histogram *h, uint64_t value) {
    int shift = 63 - __builtin_clzll(value | SUB_COUNT) - SUB_BITS;
    h->buckets[(size_t)shift * SUB_COUNT + (size_t)(value >> shift)]++;
    if (h->count == 0 || value < h->min)
        h->min = value;
    if (value > h->max)
        h->max = value;
    h->count++;
    h->sum += value;
}

static UNUSED uint64_t histogram_quantile(const struct histogram *h, double quantile) {
    uint64_t rank = (uint64_t)(quantile * (double)h->count), seen = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (h->buckets[i] != 0 && seen > rank) {
            size_t shift = i < SUB_COUNT ? 0 : i / SUB_COUNT - 1;
            uint64_t low = (uint64_t)(i - shift * SUB_COUNT) << shift;
            uint64_t middle = low + (((uint64_t)1 << shift) >> 1);
            return middle > h->max ? h->max : middle;
        }
    }
    return h->max;
}

static UNUSED void histogram_print(const struct histogram *h) {
    printf("\"min_ns\":%llu,\"p50_ns\":%llu,\"p90_ns\":%llu,\"p99_ns\":%llu,\"max_ns\":%llu,"
           "\"mean_ns\":%llu",
           (unsigned long long)h->min, (unsigned long long)histogram_quantile(h, 0.50),
           (unsigned long long)histogram_quantile(h, 0.90),
           (unsigned long long)histogram_quantile(h, 0.99), (unsigned long long)h->max,
           (unsigned long long)(h->count ? h->sum / h->count : 0));
}

/* Connect to a port of the loopback; -1 with errno set on failure. The socket is non-blocking. */
static UNUSED int connect_loopback(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    struct timeval limit = {.tv_sec = 2};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        int saved = errno;
        close(fd);
        errno = saved;
        return -1;
    }
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return fd;
}

/* Value of a header in a NUL-terminated head that begins with its first line; NULL when absent. */
static UNUSED const char *header_value(const char *head, const char *name) {
    size_t length = strlen(name);
    const char *line = strstr(head, "\r\n");
    while (line != NULL) {
        line += 2;
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            line += length + 1;
            return line + strspn(line, " \t");
        }
        line = strstr(line, "\r\n");
    }
    return NULL;
}

/* Incremental decoder of HTTP/1.1 chunked bodies (RFC 9112, 7.1). */
enum chunk_state { CHUNK_SIZE, CHUNK_SIZE_REST, CHUNK_DATA, CHUNK_DATA_END, CHUNK_TRAILER, CHUNK_DONE,
                   CHUNK_BAD };

struct chunk_decoder {
    enum chunk_state state;
    uint64_t left;     /* of the size line: its value so far; of the data: bytes to come */
    int digits;        /* of the size line */
    int trailer_bytes; /* in the current trailer line */
};

typedef void (*body_fn)(void *context, const char *data, size_t length);

/* Feed bytes; `body` gets the decoded ranges. Returns how many bytes were used: fewer than given
 * only when the body has ended or the framing is broken. */
static UNUSED size_t chunk_feed(struct chunk_decoder *d, const char *data, size_t length, body_fn body,
                                void *context) {
    size_t i = 0;
    while (i < length && d->state < CHUNK_DONE) {
        char c = data[i];
        switch (d->state) {
        case CHUNK_SIZE: {
            int digit = c >= '0' && c <= '9' ? c - '0'
                        : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
            if (digit < 0) {
                d->state = d->digits == 0 ? CHUNK_BAD : CHUNK_SIZE_REST;
                continue;
            }
            if (++d->digits > 8)
                d->state = CHUNK_BAD;
            d->left = d->left * 16 + (uint64_t)digit;
            i++;
            break;
        }
        case CHUNK_SIZE_REST:
            i++;
            if (c == '\n') {
                d->digits = 0;
                d->trailer_bytes = 0;
                d->state = d->left ? CHUNK_DATA : CHUNK_TRAILER;
            }
            break;
        case CHUNK_DATA: {
            size_t part = length - i < d->left ? length - i : (size_t)d->left;
            body(context, data + i, part);
            i += part;
            d->left -= part;
            if (d->left == 0)
                d->state = CHUNK_DATA_END;
            break;
        }
        case CHUNK_DATA_END:
            i++;
            if (c == '\n')
                d->state = CHUNK_SIZE;
            else if (c != '\r')
                d->state = CHUNK_BAD;
            break;
        case CHUNK_TRAILER:
            i++;
            if (c == '\n') {
                if (d->trailer_bytes == 0)
                    d->state = CHUNK_DONE;
                d->trailer_bytes = 0;
            } else if (c != '\r' && ++d->trailer_bytes > HEAD_MAX_BYTES) {
                d->state = CHUNK_BAD;
            }
            break;
        default:
            break;
        }
    }
    return i;
}

#endif
