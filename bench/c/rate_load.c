/* Closed loop: C keep-alive connections, each sends its next request when the answer to the last one
 * is complete. Status and body length of every answer are checked. "window begin" and "window end"
 * are printed on stdout for whoever reads the CPU time of the proxy between; one line of JSON closes
 * the output. */
#include "common.h"

#define CONNECTIONS_MAX 1024
#define READ_BYTES 65536
/* The peer is beyond help: the loop ends. */
#define FAULTS_MAX 100

struct client {
    int fd, chunked;
    uint64_t sent_ns;
    size_t head_kept, body_bytes, body_left;
    int head_done;
    struct chunk_decoder decoder;
    char head[HEAD_MAX_BYTES + 1];
};

static struct client clients[CONNECTIONS_MAX];
static struct histogram latencies;
static char request[65536];
static size_t request_bytes;
static long expected_bytes;
static int epoll_fd, port, in_window;
static uint64_t window_requests, total_requests;
static long connect_faults, status_faults, length_faults, framing_faults, closed_faults, reconnects;

static long faults(void) {
    return connect_faults + status_faults + length_faults + framing_faults + closed_faults;
}

static void send_request(struct client *c) {
    c->head_kept = c->body_bytes = c->body_left = 0;
    c->head_done = c->chunked = 0;
    memset(&c->decoder, 0, sizeof c->decoder);
    c->sent_ns = now_ns();
    /* A request fits into an empty socket buffer; anything else is a fault of the connection. */
    if (send(c->fd, request, request_bytes, MSG_NOSIGNAL) != (ssize_t)request_bytes)
        closed_faults++;
}

static void open_client(struct client *c) {
    c->fd = connect_loopback(port);
    if (c->fd < 0) {
        connect_faults++;
        return;
    }
    struct epoll_event e = {.events = EPOLLIN};
    e.data.ptr = c;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &e);
    send_request(c);
}

static void reopen(struct client *c, long *fault) {
    (*fault)++;
    close(c->fd);
    c->fd = -1;
    if (faults() < FAULTS_MAX)
        open_client(c);
}

static void on_body(void *context, const char *data, size_t length) {
    (void)data;
    ((struct client *)context)->body_bytes += length;
}

/* Take the head off the front; the number of bytes used, 0 with head_done unset when it goes on. */
static size_t take_head(struct client *c, const char *data, size_t length) {
    size_t before = c->head_kept;
    size_t part = HEAD_MAX_BYTES - before < length ? HEAD_MAX_BYTES - before : length;
    memcpy(c->head + before, data, part);
    c->head_kept += part;
    c->head[c->head_kept] = '\0';
    char *end = strstr(c->head, "\r\n\r\n");
    if (end == NULL)
        return 0;
    end[2] = '\0';
    c->head_done = 1;
    const char *length_text = header_value(c->head, "content-length");
    if (length_text != NULL) {
        c->body_left = strtoul(length_text, NULL, 10);
    } else {
        const char *coding = header_value(c->head, "transfer-encoding");
        c->chunked = coding != NULL && strncasecmp(coding, "chunked", 7) == 0;
    }
    return (size_t)(end + 4 - c->head) - before;
}

static int body_complete(struct client *c, const char *data, size_t length) {
    if (c->chunked) {
        chunk_feed(&c->decoder, data, length, on_body, c);
        return c->decoder.state == CHUNK_DONE;
    }
    size_t part = length < c->body_left ? length : c->body_left;
    c->body_bytes += part;
    c->body_left -= part;
    return c->body_left == 0;
}

static void on_readable(struct client *c) {
    static char buffer[READ_BYTES];
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        reopen(c, &closed_faults);
        return;
    }
    size_t used = 0;
    if (!c->head_done) {
        used = take_head(c, buffer, (size_t)got);
        if (!c->head_done) {
            if (c->head_kept == HEAD_MAX_BYTES)
                reopen(c, &framing_faults);
            return;
        }
    }
    if (!body_complete(c, buffer + used, (size_t)got - used)) {
        if (c->decoder.state == CHUNK_BAD)
            reopen(c, &framing_faults);
        return;
    }
    uint64_t took_ns = now_ns() - c->sent_ns;
    if (strncmp(c->head, "HTTP/1.1 200", 12) != 0) {
        reopen(c, &status_faults);
        return;
    }
    if (expected_bytes == 0)
        expected_bytes = (long)c->body_bytes;
    if ((long)c->body_bytes != expected_bytes) {
        reopen(c, &length_faults);
        return;
    }
    total_requests++;
    if (in_window) {
        window_requests++;
        histogram_add(&latencies, took_ns);
    }
    const char *connection = header_value(c->head, "connection");
    if (connection != NULL && strncasecmp(connection, "close", 5) == 0) {
        reconnects++;
        close(c->fd);
        open_client(c);
        return;
    }
    send_request(c);
}

static void prepare_request(const char *path, const char *body) {
    int total = snprintf(request, sizeof request,
                         "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                         "Content-Length: %zu\r\n\r\n%s",
                         path, port, strlen(body), body);
    if (total < 0 || (size_t)total >= sizeof request)
        die("rate_load: the request is too long");
    request_bytes = (size_t)total;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},    {"connections", required_argument, NULL, 'n'},
        {"seconds", required_argument, NULL, 's'}, {"warmup", required_argument, NULL, 'w'},
        {"path", required_argument, NULL, 'P'},    {"body", required_argument, NULL, 'b'},
        {"expect", required_argument, NULL, 'e'},  {"cpu", required_argument, NULL, 'c'},
        {NULL, 0, NULL, 0}};
    int option, cpu = -1, connections = 1;
    double seconds = 3, warmup_s = 0.5;
    const char *path = "/v1/chat/completions", *body = "{}";
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'p')
            port = (int)number_of(optarg, "port", 1, 65535);
        else if (option == 'n')
            connections = (int)number_of(optarg, "connections", 1, CONNECTIONS_MAX);
        else if (option == 's')
            seconds = number_of(optarg, "seconds", 0.05, 600);
        else if (option == 'w')
            warmup_s = number_of(optarg, "warmup", 0, 60);
        else if (option == 'e')
            expected_bytes = (long)number_of(optarg, "expect", 0, 1e9);
        else if (option == 'c')
            cpu = (int)number_of(optarg, "cpu", -1, 1023);
        else if (option == 'P')
            path = optarg;
        else if (option == 'b')
            body = optarg;
        else
            return 2;
    }
    if (port == 0)
        die("usage: rate_load --port N [--connections N] [--seconds S] [--warmup S] [--path P]"
            " [--body JSON] [--expect BYTES, 0: as the first answer] [--cpu N]");
    pin_to_cpu(cpu);
    prepare_request(path, body);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN}, ready[EVENTS_PER_WAIT];
    e.data.ptr = NULL;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &e);
    for (int i = 0; i < connections; i++)
        open_client(&clients[i]);
    uint64_t window_begin = now_ns() + (uint64_t)(warmup_s * 1e9), begun_ns = 0, cpu_ns = 0;
    int ended = 0;
    arm_timer_at(timer_fd, window_begin);
    while (!ended && faults() < FAULTS_MAX) {
        int count = epoll_wait(epoll_fd, ready, EVENTS_PER_WAIT, -1);
        for (int i = 0; i < count && !ended; i++) {
            uint64_t ticks;
            if (ready[i].data.ptr != NULL) {
                on_readable(ready[i].data.ptr);
            } else if (read(timer_fd, &ticks, sizeof ticks) == sizeof ticks) {
                printf("window %s\n", in_window ? "end" : "begin");
                fflush(stdout);
                ended = in_window;
                if (!ended) {
                    in_window = 1;
                    begun_ns = now_ns();
                    cpu_ns = own_cpu_ns();
                    arm_timer_at(timer_fd, begun_ns + (uint64_t)(seconds * 1e9));
                }
            }
        }
    }
    double took_s = begun_ns ? (double)(now_ns() - begun_ns) / 1e9 : 0;
    printf("{\"connections\":%d,\"window_s\":%.3f,\"requests\":%llu,\"requests_total\":%llu,"
           "\"requests_per_s\":%.1f,\"body_bytes\":%ld,\"cpu_ns\":%llu,",
           connections, took_s, (unsigned long long)window_requests,
           (unsigned long long)total_requests, took_s > 0 ? (double)window_requests / took_s : 0.0,
           expected_bytes, (unsigned long long)(begun_ns ? own_cpu_ns() - cpu_ns : 0));
    histogram_print(&latencies);
    printf(",\"reconnects\":%ld,\"failed\":%ld,\"errors\":{\"connect\":%ld,\"status\":%ld,"
           "\"length\":%ld,\"framing\":%ld,\"closed\":%ld}}\n",
           reconnects, faults(), connect_faults, status_faults, length_faults, framing_faults,
           closed_faults);
    return 0;
}
