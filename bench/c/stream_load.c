/* Open N paced streams, without a burst, and measure how long each event took from the stub's send
 * to our receive. Events count from the time when all streams run ("window begin" and "window end"
 * are printed on stdout for whoever reads the CPU time of the proxy between), the end of each
 * stream is checked, and one line of JSON closes the output. */
#include "common.h"

#define STREAMS_MAX 4096
/* Longer lines than this are no events of the stub. */
#define LINE_MAX_BYTES 1024
#define READ_BYTES 65536
/* From the last stream's start to the window, and from the window to the first stream's end. */
#define SETTLE_S 0.3
/* For streams that are late at the end. */
#define GRACE_S 5.0

enum fault { FAULT_NONE, FAULT_CONNECT, FAULT_STATUS, FAULT_FRAMING, FAULT_EARLY_END, FAULT_LONG_LINE,
             FAULT_COUNT, FAULT_TIMEOUT, FAULTS };
static const char *const fault_names[FAULTS] = {"none", "connect", "status", "framing", "early_end",
                                                "long_line", "count", "timeout"};

struct stream {
    int fd, head_done, done_seen;
    enum fault fault;
    long events;
    struct chunk_decoder decoder;
    size_t kept; /* bytes of an unfinished head or line */
    char keep[HEAD_MAX_BYTES + 1];
};

static struct stream streams[STREAMS_MAX];
static struct histogram latencies;
static char request[4096];
static size_t request_bytes;
static int epoll_fd, stream_count, open_streams, in_window;
static long events_per_stream;
static uint64_t received_ns, window_events, window_reads, total_events;

static void finish(struct stream *s, enum fault fault) {
    if (s->fd < 0)
        return;
    close(s->fd);
    s->fd = -1;
    open_streams--;
    if (fault == FAULT_NONE && (s->events != events_per_stream || !s->done_seen))
        fault = FAULT_COUNT;
    s->fault = fault;
}

static void on_line(struct stream *s, const char *line, size_t length) {
    if (length < 6 || memcmp(line, "data: ", 6) != 0)
        return;
    if (length >= 12 && memcmp(line + 6, "[DONE]", 6) == 0) {
        s->done_seen = 1;
        return;
    }
    const char *mark = memmem(line, length, STAMP_MARKER, sizeof STAMP_MARKER - 1);
    if (mark == NULL || mark + sizeof STAMP_MARKER - 1 + STAMP_DIGITS > line + length)
        return;
    mark += sizeof STAMP_MARKER - 1;
    uint64_t sent_ns = 0;
    for (int i = 0; i < STAMP_DIGITS; i++)
        sent_ns = sent_ns * 10 + (uint64_t)(mark[i] - '0');
    s->events++;
    total_events++;
    if (in_window) {
        window_events++;
        histogram_add(&latencies, received_ns > sent_ns ? received_ns - sent_ns : 0);
    }
}

static void on_body(void *context, const char *data, size_t length) {
    struct stream *s = context;
    while (length > 0) {
        const char *end = memchr(data, '\n', length);
        size_t part = end ? (size_t)(end - data) : length;
        if (s->kept == 0 && end != NULL) {
            on_line(s, data, part);
        } else if (s->kept + part > LINE_MAX_BYTES) {
            s->fault = FAULT_LONG_LINE;
            s->kept = 0;
        } else {
            memcpy(s->keep + s->kept, data, part);
            s->kept += part;
            if (end != NULL) {
                on_line(s, s->keep, s->kept);
                s->kept = 0;
            }
        }
        part += end != NULL;
        data += part;
        length -= part;
    }
}

/* Take the response's head off the front; the number of bytes used, or -1 when it is wrong. */
static ssize_t take_head(struct stream *s, const char *data, size_t length) {
    size_t before = s->kept, part = HEAD_MAX_BYTES - before < length ? HEAD_MAX_BYTES - before : length;
    memcpy(s->keep + before, data, part);
    s->kept += part;
    s->keep[s->kept] = '\0';
    char *end = strstr(s->keep, "\r\n\r\n");
    if (end == NULL)
        return s->kept < HEAD_MAX_BYTES ? (ssize_t)length : -1;
    end[2] = '\0';
    if (strncmp(s->keep, "HTTP/1.1 200", 12) != 0) {
        s->fault = FAULT_STATUS;
        return -1;
    }
    const char *coding = header_value(s->keep, "transfer-encoding");
    if (coding == NULL || strncasecmp(coding, "chunked", 7) != 0)
        return -1;
    s->head_done = 1;
    s->kept = 0;
    return end + 4 - s->keep - (ssize_t)before;
}

static void on_readable(struct stream *s) {
    static char buffer[READ_BYTES];
    ssize_t got = recv(s->fd, buffer, sizeof buffer, 0);
    received_ns = now_ns();
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        finish(s, FAULT_EARLY_END);
        return;
    }
    window_reads += (uint64_t)in_window;
    size_t used = 0;
    if (!s->head_done) {
        ssize_t head = take_head(s, buffer, (size_t)got);
        if (head < 0) {
            finish(s, s->fault ? s->fault : FAULT_FRAMING);
            return;
        }
        used = (size_t)head;
        if (!s->head_done)
            return;
    }
    chunk_feed(&s->decoder, buffer + used, (size_t)got - used, on_body, s);
    if (s->decoder.state == CHUNK_BAD)
        finish(s, FAULT_FRAMING);
    else if (s->fault != FAULT_NONE)
        finish(s, s->fault);
    else if (s->decoder.state == CHUNK_DONE)
        finish(s, FAULT_NONE);
}

static void start_stream(struct stream *s, int port) {
    s->fd = connect_loopback(port);
    if (s->fd < 0 || send(s->fd, request, request_bytes, MSG_NOSIGNAL) != (ssize_t)request_bytes) {
        s->fault = FAULT_CONNECT;
        if (s->fd >= 0)
            close(s->fd);
        s->fd = -1;
        return;
    }
    open_streams++;
    struct epoll_event e = {.events = EPOLLIN};
    e.data.ptr = s;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, s->fd, &e);
}

static void prepare_request(int port, const char *path, const char *model) {
    char body[2048];
    int length = snprintf(body, sizeof body,
                          "{\"model\":\"%s\",\"stream\":true,\"max_tokens\":%ld,\"messages\":[{\"role\":"
                          "\"user\",\"content\":\"Say something.\"}]}",
                          model, events_per_stream);
    int total = snprintf(request, sizeof request,
                         "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                         "Accept: text/event-stream\r\nContent-Length: %d\r\n\r\n%s",
                         path, port, length, body);
    if (length < 0 || total < 0 || (size_t)total >= sizeof request || (size_t)length >= sizeof body)
        die("stream_load: the request is too long");
    request_bytes = (size_t)total;
}

static void print_report(double seconds, uint64_t cpu_ns) {
    long by_fault[FAULTS] = {0}, failed = 0;
    for (int i = 0; i < stream_count; i++) {
        by_fault[streams[i].fault]++;
        failed += streams[i].fault != FAULT_NONE;
    }
    printf("{\"streams\":%d,\"events_per_stream\":%ld,\"window_s\":%.3f,\"chunks\":%llu,"
           "\"chunks_total\":%llu,\"reads\":%llu,\"cpu_ns\":%llu,",
           stream_count, events_per_stream, seconds, (unsigned long long)window_events,
           (unsigned long long)total_events, (unsigned long long)window_reads,
           (unsigned long long)cpu_ns);
    histogram_print(&latencies);
    printf(",\"failed_streams\":%ld,\"errors\":{", failed);
    int first = 1;
    for (int i = 1; i < FAULTS; i++)
        if (by_fault[i]) {
            printf("%s\"%s\":%ld", first ? "" : ",", fault_names[i], by_fault[i]);
            first = 0;
        }
    printf("}}\n");
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'},    {"streams", required_argument, NULL, 'n'},
        {"rate", required_argument, NULL, 'r'},    {"seconds", required_argument, NULL, 's'},
        {"ramp", required_argument, NULL, 'R'},    {"model", required_argument, NULL, 'm'},
        {"path", required_argument, NULL, 'P'},    {"cpu", required_argument, NULL, 'c'},
        {NULL, 0, NULL, 0}};
    int option, port = 0, cpu = -1;
    double rate = 50, seconds = 8, ramp_s = 1;
    const char *model = "stub", *path = "/v1/chat/completions";
    stream_count = 1;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'p')
            port = (int)number_of(optarg, "port", 1, 65535);
        else if (option == 'n')
            stream_count = (int)number_of(optarg, "streams", 1, STREAMS_MAX);
        else if (option == 'r')
            rate = number_of(optarg, "rate", 1, 10000);
        else if (option == 's')
            seconds = number_of(optarg, "seconds", 0.05, 600);
        else if (option == 'R')
            ramp_s = number_of(optarg, "ramp", 0, 60);
        else if (option == 'c')
            cpu = (int)number_of(optarg, "cpu", -1, 1023);
        else if (option == 'm')
            model = optarg;
        else if (option == 'P')
            path = optarg;
        else
            return 2;
    }
    if (port == 0)
        die("usage: stream_load --port N [--streams N] [--rate N] [--seconds S] [--ramp S] [--model ID]"
            " [--path P] [--cpu N]");
    pin_to_cpu(cpu);
    events_per_stream = (long)((ramp_s + seconds + 2 * SETTLE_S) * rate) + 1;
    prepare_request(port, path, model);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN}, ready[EVENTS_PER_WAIT];
    e.data.ptr = NULL;
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &e);

    uint64_t begin = now_ns(), ramp_ns = (uint64_t)(ramp_s * 1e9);
    uint64_t window_begin = begin + ramp_ns + (uint64_t)(SETTLE_S * 1e9);
    uint64_t window_end = window_begin + (uint64_t)(seconds * 1e9);
    uint64_t deadline = window_end + ramp_ns + (uint64_t)((SETTLE_S + GRACE_S) * 1e9);
    uint64_t cpu_ns = 0;
    int started = 0, phase = 0; /* 0: before the window, 1: in it, 2: after it */
    for (;;) {
        uint64_t now = now_ns();
        /* One per turn, so that the running streams are read between. */
        if (started < stream_count &&
            now >= begin + ramp_ns * (uint64_t)started / (uint64_t)stream_count)
            start_stream(&streams[started++], port);
        if (phase == 0 && now >= window_begin) {
            printf("window begin\n");
            fflush(stdout);
            phase = in_window = 1;
            cpu_ns = own_cpu_ns();
        } else if (phase == 1 && now >= window_end) {
            cpu_ns = own_cpu_ns() - cpu_ns;
            printf("window end\n");
            fflush(stdout);
            phase = 2;
            in_window = 0;
        }
        if ((phase == 2 && open_streams == 0) || now >= deadline)
            break;
        uint64_t next = phase == 0 ? window_begin : phase == 1 ? window_end : deadline;
        if (started < stream_count) {
            uint64_t at = begin + ramp_ns * (uint64_t)started / (uint64_t)stream_count;
            next = at < next ? at : next;
        }
        arm_timer_at(timer_fd, next);
        int count = epoll_wait(epoll_fd, ready, EVENTS_PER_WAIT, -1);
        for (int i = 0; i < count; i++) {
            uint64_t ticks;
            if (ready[i].data.ptr != NULL)
                on_readable(ready[i].data.ptr);
            else if (read(timer_fd, &ticks, sizeof ticks) < 0 && errno != EAGAIN)
                die("stream_load: timer: %s", strerror(errno));
        }
    }
    for (int i = 0; i < started; i++)
        finish(&streams[i], FAULT_TIMEOUT);
    print_report(seconds, cpu_ns);
    return 0;
}
