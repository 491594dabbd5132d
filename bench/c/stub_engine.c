/* An engine that costs next to nothing: what a proxy in front of it costs is what remains.
 *
 *   GET  /health            200
 *   GET  anything else      404
 *   POST anything           a small JSON answer; or, with "stream":true in the body, "max_tokens"
 *                           server-sent events, each in an HTTP chunk of its own, at --rate per
 *                           second and stream, the first at once
 *
 * Each event carries the CLOCK_MONOTONIC time of its send. One timer drives all streams: it ticks
 * every --tick-us, and a stream has a fixed slot on a wheel of one period, the emptiest slot at its
 * start, so that the phases are spread evenly. SIGTERM ends the process at once. */
#include "common.h"

#define REQUEST_MAX_BYTES 32768
/* Bytes that a slow reader may owe before its stream is cut. */
#define OWED_MAX_BYTES 262144
#define EVENT_BYTES 180
#define CONNECTIONS_MAX 8192

struct connection {
    int fd, slot, index_in_slot;
    long left; /* events still to send; 0 when no stream runs */
    uint64_t number;
    size_t in_bytes, owed_bytes;
    char *in, *owed;
    int wants_write;
};

struct slot {
    int count, room;
    struct connection **members;
};

static int epoll_fd, timer_fd, slot_count, slot_now, streaming;
static struct slot *slots;
static uint64_t tick_ns;

static const char STREAM_HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                  "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char STREAM_END[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
static char answer[1024], event_template[512];
static size_t answer_bytes, event_bytes, stamp_offset;

static void prepare_texts(void) {
    static const char body[] =
        "{\"id\":\"chatcmpl-bench0000000000000000000000\",\"object\":\"chat.completion\","
        "\"created\":1700000000,\"model\":\"stub\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
        "\"assistant\",\"content\":\"The quick brown fox jumps over the lazy dog and goes home.\"},"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":32,\"completion_tokens\":14,"
        "\"total_tokens\":46},\"system_fingerprint\":\"stub\"}";
    answer_bytes = (size_t)snprintf(answer, sizeof answer,
                                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                                    "Content-Length: %zu\r\n\r\n%s",
                                    sizeof body - 1, body);
    static const char before[] = "data: {\"id\":\"chatcmpl-b\",\"object\":\"chat.completion.chunk\","
                                 "\"created\":1700000000,\"model\":\"stub\",\"choices\":[{\"index\":0,"
                                 "\"delta\":{\"content\":";
    static const char after[] = "\"}}]}\n\n";
    char text[EVENT_BYTES + 1];
    int used = snprintf(text, sizeof text, "%s" STAMP_MARKER "%0*d", before, STAMP_DIGITS, 0);
    size_t tail = sizeof after - 1;
    if (used < 0 || (size_t)used + tail > EVENT_BYTES)
        die("the event does not fit into %d bytes", EVENT_BYTES);
    memset(text + used, ' ', EVENT_BYTES - (size_t)used - tail);
    memcpy(text + EVENT_BYTES - tail, after, tail + 1);
    int head = snprintf(event_template, sizeof event_template, "%x\r\n", EVENT_BYTES);
    stamp_offset = (size_t)head + (size_t)used - STAMP_DIGITS;
    event_bytes = (size_t)(head + snprintf(event_template + head, sizeof event_template - (size_t)head,
                                           "%s\r\n", text));
}

static void stamp(char *event) {
    uint64_t t = now_ns();
    for (int i = STAMP_DIGITS - 1; i >= 0; i--, t /= 10)
        event[stamp_offset + (size_t)i] = (char)('0' + t % 10);
}

static void leave_slot(struct connection *c) {
    if (c->left == 0)
        return;
    struct slot *s = &slots[c->slot];
    struct connection *last = s->members[--s->count];
    s->members[c->index_in_slot] = last;
    last->index_in_slot = c->index_in_slot;
    c->left = 0;
    if (--streaming == 0)
        arm_timer_at(timer_fd, 0);
}

static void drop(struct connection *c) {
    leave_slot(c);
    close(c->fd);
    free(c->in);
    free(c->owed);
    free(c);
}

static void watch(struct connection *c, int wants_write) {
    if (c->wants_write == wants_write)
        return;
    c->wants_write = wants_write;
    struct epoll_event e = {.events = EPOLLIN | (wants_write ? (uint32_t)EPOLLOUT : 0)};
    e.data.ptr = c;
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &e);
}

/* Send, or owe what the socket does not take. False when the connection has to go. */
static int put(struct connection *c, const char *data, size_t length) {
    if (c->owed_bytes == 0) {
        ssize_t sent = send(c->fd, data, length, MSG_NOSIGNAL);
        if (sent == (ssize_t)length)
            return 1;
        if (sent < 0 && errno != EAGAIN)
            return 0;
        if (sent > 0) {
            data += sent;
            length -= (size_t)sent;
        }
    }
    if (c->owed == NULL && (c->owed = malloc(OWED_MAX_BYTES)) == NULL)
        return 0;
    if (c->owed_bytes + length > OWED_MAX_BYTES)
        return 0;
    memcpy(c->owed + c->owed_bytes, data, length);
    c->owed_bytes += length;
    watch(c, 1);
    return 1;
}

static int pay(struct connection *c) {
    ssize_t sent = send(c->fd, c->owed, c->owed_bytes, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN;
    c->owed_bytes -= (size_t)sent;
    memmove(c->owed, c->owed + sent, c->owed_bytes);
    if (c->owed_bytes == 0)
        watch(c, 0);
    return 1;
}

/* One event of a stream, with the end of the stream behind the last one. */
static int send_event(struct connection *c, const char *before, size_t before_bytes) {
    char buffer[1024];
    memcpy(buffer, before, before_bytes);
    memcpy(buffer + before_bytes, event_template, event_bytes);
    size_t length = before_bytes + event_bytes;
    if (c->left == 1) {
        memcpy(buffer + length, STREAM_END, sizeof STREAM_END - 1);
        length += sizeof STREAM_END - 1;
        leave_slot(c);
    } else {
        c->left--;
    }
    stamp(buffer + before_bytes);
    return put(c, buffer, length);
}

static int start_stream(struct connection *c, long count) {
    int best = 0;
    /* From the slot behind the present one: the second event follows a full period later. */
    for (int i = 1; i < slot_count; i++)
        if (slots[(slot_now + slot_count - i) % slot_count].count <
            slots[(slot_now + slot_count - best) % slot_count].count)
            best = i;
    c->slot = (slot_now + slot_count - best) % slot_count;
    struct slot *s = &slots[c->slot];
    if (s->count == s->room) {
        s->room = s->room ? 2 * s->room : 64;
        s->members = realloc(s->members, sizeof *s->members * (size_t)s->room);
        if (s->members == NULL)
            die("out of memory");
    }
    c->index_in_slot = s->count;
    s->members[s->count++] = c;
    c->left = count;
    if (streaming++ == 0) {
        struct itimerspec each = {0};
        each.it_interval.tv_sec = each.it_value.tv_sec = (time_t)(tick_ns / NS_PER_S);
        each.it_interval.tv_nsec = each.it_value.tv_nsec = (long)(tick_ns % NS_PER_S);
        timerfd_settime(timer_fd, 0, &each, NULL);
    }
    return send_event(c, STREAM_HEAD, sizeof STREAM_HEAD - 1);
}

static int answer_post(struct connection *c, const char *body, size_t length) {
    if (!memmem(body, length, "\"stream\":true", 13) && !memmem(body, length, "\"stream\": true", 14))
        return put(c, answer, answer_bytes);
    long count = 16;
    const char *limit = memmem(body, length, "\"max_tokens\":", 13);
    if (limit != NULL)
        count = strtol(limit + 13, NULL, 10);
    return start_stream(c, count < 1 ? 1 : count);
}

/* Answer one complete request, if there is one. 0: drop; 1: wait for more; 2: look again. */
static int answer_one(struct connection *c) {
    c->in[c->in_bytes] = '\0';
    char *end = strstr(c->in, "\r\n\r\n");
    if (end == NULL)
        return c->in_bytes < REQUEST_MAX_BYTES;
    end[2] = '\0'; /* keeps the last header line's end; ends the head for the string functions */
    size_t head_bytes = (size_t)(end - c->in) + 4, body_bytes = 0;
    const char *value = header_value(c->in, "content-length");
    const char *coding = header_value(c->in, "transfer-encoding");
    end[2] = '\r';
    char *body = c->in + head_bytes;
    size_t have = c->in_bytes - head_bytes;
    if (coding != NULL && strncasecmp(coding, "chunked", 7) == 0) {
        char *last = have ? memmem(body, have, "0\r\n\r\n", 5) : NULL;
        if (last == NULL)
            return c->in_bytes < REQUEST_MAX_BYTES;
        body_bytes = (size_t)(last - body) + 5;
    } else if (value != NULL) {
        body_bytes = strtoul(value, NULL, 10);
    }
    if (head_bytes + body_bytes > REQUEST_MAX_BYTES)
        return 0;
    if (have < body_bytes)
        return 1;
    static const char healthy[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                                  "Content-Length: 15\r\n\r\n{\"status\":\"ok\"}";
    static const char unknown[] = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n"
                                  "Content-Length: 21\r\n\r\n{\"error\":\"not found\"}\n";
    int alive;
    if (strncmp(c->in, "POST ", 5) == 0)
        alive = answer_post(c, body, body_bytes);
    else if (strncmp(c->in, "GET /health", 11) == 0)
        alive = put(c, healthy, sizeof healthy - 1);
    else
        alive = put(c, unknown, sizeof unknown - 1);
    if (!alive)
        return 0;
    c->in_bytes -= head_bytes + body_bytes;
    memmove(c->in, c->in + head_bytes + body_bytes, c->in_bytes);
    return c->in_bytes ? 2 : 1;
}

static void on_readable(struct connection *c) {
    size_t room = REQUEST_MAX_BYTES - c->in_bytes;
    ssize_t got = room ? recv(c->fd, c->in + c->in_bytes, room, 0) : 0;
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop(c);
        return;
    }
    c->in_bytes += (size_t)got;
    int verdict = 2;
    while (verdict == 2 && c->left == 0)
        verdict = answer_one(c);
    if (verdict == 0)
        drop(c);
}

static void on_tick(void) {
    uint64_t ticks;
    if (read(timer_fd, &ticks, sizeof ticks) != sizeof ticks)
        return;
    while (ticks-- && streaming) {
        slot_now = (slot_now + 1) % slot_count;
        struct slot *s = &slots[slot_now];
        /* Backwards: a member that leaves is replaced by the last one, which had its turn. */
        for (int i = s->count - 1; i >= 0; i--) {
            struct connection *c = s->members[i];
            if (!send_event(c, "", 0))
                drop(c);
        }
    }
}

static void on_connections(int listen_fd) {
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct connection *c = calloc(1, sizeof *c);
        if (fd >= CONNECTIONS_MAX || c == NULL || (c->in = malloc(REQUEST_MAX_BYTES + 1)) == NULL) {
            free(c);
            close(fd);
            continue;
        }
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        c->fd = fd;
        struct epoll_event e = {.events = EPOLLIN};
        e.data.ptr = c;
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 1024) != 0)
        die("stub_engine: cannot listen on port %d: %s", port, strerror(errno));
    return fd;
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"port", required_argument, NULL, 'p'},
                                            {"rate", required_argument, NULL, 'r'},
                                            {"tick-us", required_argument, NULL, 't'},
                                            {"cpu", required_argument, NULL, 'c'},
                                            {NULL, 0, NULL, 0}};
    int option, port = 0, cpu = -1;
    double rate = 50, tick_us = 1000;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'p')
            port = (int)number_of(optarg, "port", 1, 65535);
        else if (option == 'r')
            rate = number_of(optarg, "rate", 1, 10000);
        else if (option == 't')
            tick_us = number_of(optarg, "tick-us", 50, 100000);
        else if (option == 'c')
            cpu = (int)number_of(optarg, "cpu", -1, 1023);
        else
            return 2;
    }
    if (port == 0)
        die("usage: stub_engine --port N [--rate EVENTS_PER_S] [--tick-us N] [--cpu N]");
    pin_to_cpu(cpu);
    prepare_texts();
    slot_count = (int)(1e6 / rate / tick_us + 0.5);
    slot_count = slot_count < 1 ? 1 : slot_count;
    tick_ns = (uint64_t)(1e9 / rate / slot_count);
    slots = calloc((size_t)slot_count, sizeof *slots);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int listen_fd = listen_on(port);
    struct epoll_event e = {.events = EPOLLIN};
    e.data.ptr = &timer_fd;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &e);
    e.data.ptr = &epoll_fd; /* stands for the listener */
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &e);
    struct epoll_event ready[EVENTS_PER_WAIT];
    int connections_waiting, tick_waiting;
    for (;;) {
        int count = epoll_wait(epoll_fd, ready, EVENTS_PER_WAIT, -1);
        connections_waiting = tick_waiting = 0;
        /* Within one batch only its own handler drops a connection: the tick, which may drop any,
         * and the listener, which may reuse memory, come last. */
        for (int i = 0; i < count; i++) {
            if (ready[i].data.ptr == &timer_fd) {
                tick_waiting = 1;
            } else if (ready[i].data.ptr == &epoll_fd) {
                connections_waiting = 1;
            } else {
                struct connection *c = ready[i].data.ptr;
                if ((ready[i].events & EPOLLOUT) && !pay(c)) {
                    drop(c);
                    continue;
                }
                if (ready[i].events & ~(uint32_t)EPOLLOUT)
                    on_readable(c);
            }
        }
        if (tick_waiting)
            on_tick();
        if (connections_waiting)
            on_connections(listen_fd);
    }
}
