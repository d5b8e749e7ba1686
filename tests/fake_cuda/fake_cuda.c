/* A CUDA driver without a device, for tests of the drivers in src/driver/.
 *
 * It exports the functions that src/driver/cuda/sys.rs looks up (and the few more that cust and cudarc call), keeps
 * "device" memory on the host, and does nothing early: work is queued on its stream and runs only when
 * something waits for it, so that a source read too late, a free too soon or a staging part reused too
 * early shows. What no driver call may do is counted as a violation. tests/fake_cuda.rs steers it through fake_*.
 *
 * Not modelled: the instructions of kernels. A launch checks when it runs that every address in its parameter is live.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))

typedef int Code;
typedef uint64_t Address;
enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_IMAGE = 200, INVALID_CONTEXT = 201,
       NOT_FOUND = 500, NOT_READY = 600, CAPTURE_UNSUPPORTED = 900 };

/* ---- What a test can set and ask */

static struct { char name[64]; long value; } settings[64], failures[64];
static char last_violation[256];
static long violations;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static long *slot(void *table, const char *name) {
    struct { char name[64]; long value; } *entries = table;
    for (int i = 0; i < 64; i++) {
        if (!strcmp(entries[i].name, name)) return &entries[i].value;
        if (!entries[i].name[0]) {
            snprintf(entries[i].name, 64, "%s", name);
            return &entries[i].value;
        }
    }
    abort();
}
static long setting(const char *name) { return *slot(settings, name); }
static void count(const char *name, long by) { *slot(settings, name) += by; }
static Code violation(const char *what) {
    violations++;
    snprintf(last_violation, sizeof last_violation, "%s", what);
    return INVALID_VALUE;
}

/* ---- Memory, streams, graphs */

#define TAG 0x7fd0000000000000ull /* device addresses are in a range of their own; low bits are a host pointer */
typedef struct { unsigned char *base; size_t bytes; int live, host; } Block;
static Block blocks[4096];
static int num_blocks;

typedef struct Module { char *text; int live; } Module;
typedef struct Function { Module *module; size_t param_bytes; long shared_limit; } Function;
typedef struct Event { int recorded, passed, queued; } Event;
typedef struct Op {
    enum { H2D, D2H, D2D, FILL, FREE, LAUNCH, MARK } kind;
    Address dst, src;
    void *host;
    size_t bytes;
    int value;
    Function *function;
    unsigned char params[256];
    Event *event;
    struct Op *next;
} Op;
typedef struct Stream { Op *first, *last; int capturing, destroyed; Op *captured, *captured_last; } Stream;
typedef struct Graph { Op *ops; } Graph;
static Stream streams[256], null_stream;
static int num_streams;
static Code sticky;
static struct { unsigned grid[3], block[3], shared, attribute, attribute_value; size_t param_bytes; unsigned char params[256]; } last_launch;

static __thread void *contexts[16];
static __thread int depth;
static int primary;

static int live(Address address, size_t bytes) {
    if ((address & 0xffff000000000000ull) != (TAG & 0xffff000000000000ull)) return 0;
    unsigned char *p = (unsigned char *)(address - TAG);
    for (int i = 0; i < num_blocks; i++)
        if (blocks[i].live && !blocks[i].host && p >= blocks[i].base && p + bytes <= blocks[i].base + blocks[i].bytes) return 1;
    return 0;
}
static int pinned(const void *p, size_t bytes) {
    for (int i = 0; i < num_blocks; i++)
        if (blocks[i].live && blocks[i].host && (unsigned char *)p >= blocks[i].base &&
            (unsigned char *)p + bytes <= blocks[i].base + blocks[i].bytes) return 1;
    return 0;
}
static unsigned char *at(Address address) { return (unsigned char *)(address - TAG); }

/* Blocks are never reused, so that a late access is seen. */
static Code new_block(unsigned char **base, size_t bytes, int host) {
    if (setting("memory_limit") && bytes > (size_t)setting("memory_limit")) return OUT_OF_MEMORY;
    if (num_blocks == 4096) abort();
    if (posix_memalign((void **)base, 256, bytes + 256)) return OUT_OF_MEMORY;
    memset(*base, 0xa5, bytes);
    blocks[num_blocks++] = (Block){*base, bytes, 1, host};
    count(host ? "live_host" : "live_device", 1);
    return OK;
}
static Code drop_block(unsigned char *base, int host) {
    for (int i = 0; i < num_blocks; i++)
        if (blocks[i].base == base && blocks[i].live && blocks[i].host == host) {
            blocks[i].live = 0;
            memset(base, 0xdd, blocks[i].bytes);
            count(host ? "live_host" : "live_device", -1);
            return OK;
        }
    return violation("memory freed that is not allocated");
}

static void run(Op *op) {
    int fine = 1;
    switch (op->kind) {
    case H2D:
        fine = pinned(op->host, op->bytes) && live(op->dst, op->bytes);
        if (fine) memcpy(at(op->dst), op->host, op->bytes);
        break;
    case D2H:
        fine = pinned(op->host, op->bytes) && live(op->src, op->bytes);
        if (fine) memcpy(op->host, at(op->src), op->bytes);
        break;
    case D2D:
        fine = live(op->dst, op->bytes) && live(op->src, op->bytes);
        if (fine) memcpy(at(op->dst), at(op->src), op->bytes);
        break;
    case FILL:
        fine = live(op->dst, op->bytes);
        if (fine) memset(at(op->dst), op->value, op->bytes);
        break;
    case FREE: drop_block(at(op->dst), 0); break;
    case MARK: op->event->queued--; op->event->passed = 1; break;
    case LAUNCH:
        if (!op->function->module->live) violation("a kernel ran whose module is unloaded");
        for (size_t i = 0; i + 8 <= op->bytes; i += 8) {
            Address word;
            memcpy(&word, op->params + i, 8);
            if ((word >> 48) == (TAG >> 48) && !live(word, 1)) violation("a kernel was given an address that is not live");
        }
        count("launches_run", 1);
        if (setting("fault")) sticky = (Code)setting("fault");
    }
    if (!fine) violation("a copy or fill touched memory that is not live (or host memory that is not pinned)");
}
static void run_first(Stream *s) {
    Op *op = s->first;
    if (!(s->first = op->next)) s->last = NULL;
    run(op);
    free(op);
}
static void run_all(Stream *s) { while (s->first) run_first(s); }
static void run_everything(void) {
    for (int i = 0; i < num_streams; i++) run_all(&streams[i]);
    run_all(&null_stream);
}
static Stream *stream_of(void *handle) {
    return (uintptr_t)handle < 3 ? &null_stream : (Stream *)handle;
}
static Code enqueue(void *handle, Op op) {
    Stream *s = stream_of(handle);
    if (s->destroyed) return violation("work on a destroyed stream");
    Op *copy = malloc(sizeof *copy);
    *copy = op;
    copy->next = NULL;
    Op **first = s->capturing ? &s->captured : &s->first, **last = s->capturing ? &s->captured_last : &s->last;
    if (s->capturing && op.kind != LAUNCH && op.kind != FILL && op.kind != D2D) violation("captured what may not be");
    if (*last) (*last)->next = copy; else *first = copy;
    *last = copy;
    return OK;
}

/* ---- Entering a function */

static void unlock(int *unused) { (void)unused; pthread_mutex_unlock(&lock); }
static Code enter(const char *name, int needs_context) {
    long failure = *slot(failures, name);
    if (failure) return (Code)failure;
    if (needs_context && sticky) return sticky;
    if (needs_context && (!depth || !contexts[depth - 1])) return INVALID_CONTEXT;
    return OK;
}
#define ENTER_WITH(needs_context)                                     \
    pthread_mutex_lock(&lock);                                        \
    __attribute__((cleanup(unlock))) int held = 0;                    \
    (void)held;                                                       \
    do {                                                              \
        Code entered = enter(__func__, needs_context);                \
        if (entered) return entered;                                  \
    } while (0)
#define ENTER ENTER_WITH(0)
#define ENTER_CONTEXT ENTER_WITH(1)

API void fake_set(const char *name, long value) { pthread_mutex_lock(&lock); *slot(settings, name) = value; pthread_mutex_unlock(&lock); }
API void fake_fail(const char *function, long code) { pthread_mutex_lock(&lock); *slot(failures, function) = code; pthread_mutex_unlock(&lock); }
API long fake_get(const char *name) { pthread_mutex_lock(&lock); long value = setting(name); pthread_mutex_unlock(&lock); return value; }
API long fake_violations(char *text, size_t bytes) { snprintf(text, bytes, "%s", last_violation); return violations; }
API size_t fake_last_launch(unsigned *numbers, unsigned char *params, size_t bytes) {
    pthread_mutex_lock(&lock);
    memcpy(numbers, &last_launch, 9 * sizeof(unsigned));
    memcpy(params, last_launch.params, bytes < last_launch.param_bytes ? bytes : last_launch.param_bytes);
    pthread_mutex_unlock(&lock);
    return last_launch.param_bytes;
}
/* Back to a new driver, but for memory: late accesses stay visible. */
API void fake_reset(void) {
    pthread_mutex_lock(&lock);
    memset(settings, 0, sizeof settings);
    memset(failures, 0, sizeof failures);
    sticky = OK;
    violations = 0;
    last_violation[0] = 0;
    *slot(settings, "driver_version") = 12040;
    *slot(settings, "device_count") = 2;
    *slot(settings, "major") = 9;
    *slot(settings, "pools") = 1;
    *slot(settings, "shared_optin") = 232448;
    pthread_mutex_unlock(&lock);
}
__attribute__((constructor)) static void start(void) { fake_reset(); }

/* ---- The driver */

API Code cuDriverGetVersion(int *version) { ENTER; *version = (int)setting("driver_version"); return OK; }
API Code cuInit(unsigned flags) { ENTER; return flags ? INVALID_VALUE : OK; }
static const char *name_of(Code code, int text) {
    switch (code) {
    case OUT_OF_MEMORY: return text ? "out of memory" : "CUDA_ERROR_OUT_OF_MEMORY";
    case 34: return text ? "CUDA driver is a stub library" : "CUDA_ERROR_STUB_LIBRARY";
    case 100: return text ? "no CUDA-capable device is detected" : "CUDA_ERROR_NO_DEVICE";
    case 218: return text ? "a PTX JIT compilation failed" : "CUDA_ERROR_INVALID_PTX";
    case 700: return text ? "an illegal memory access was encountered" : "CUDA_ERROR_ILLEGAL_ADDRESS";
    default: return NULL;
    }
}
API Code cuGetErrorName(Code code, const char **name) { return (*name = name_of(code, 0)) ? OK : INVALID_VALUE; }
API Code cuGetErrorString(Code code, const char **text) { return (*text = name_of(code, 1)) ? OK : INVALID_VALUE; }
API Code cuDeviceGetCount(int *number) { ENTER; *number = (int)setting("device_count"); return OK; }
API Code cuDeviceGet(int *device, int ordinal) {
    ENTER;
    if (ordinal >= setting("device_count")) return INVALID_DEVICE;
    *device = ordinal;
    return OK;
}
API Code cuDeviceGetName(char *name, int bytes, int device) { ENTER; snprintf(name, bytes, "Fake device %d", device); return OK; }
API Code cuDeviceGetAttribute(int *value, int attribute, int device) {
    ENTER;
    (void)device;
    switch (attribute) {
    case 16: *value = 132; return OK;
    case 38: *value = 4 << 20; return OK;
    case 75: *value = (int)setting("major"); return OK;
    case 76: *value = (int)setting("minor"); return OK;
    case 97: *value = (int)setting("shared_optin"); return OK;
    case 115: *value = (int)setting("pools"); return OK;
    default: *value = 0; return OK;
    }
}
API Code cuDevicePrimaryCtxRetain(void **context, int device) { ENTER; count("retained", 1); *context = (char *)&primary + device; return OK; }
API Code cuDevicePrimaryCtxRelease_v2(int device) { ENTER; (void)device; count("retained", -1); return OK; }
API Code cuCtxGetCurrent(void **context) { ENTER; *context = depth ? contexts[depth - 1] : NULL; return OK; }
API Code cuCtxSetCurrent(void *context) { ENTER; if (!depth) depth = 1; contexts[depth - 1] = context; return OK; }
API Code cuCtxPushCurrent_v2(void *context) { ENTER; contexts[depth++] = context; return OK; }
API Code cuCtxPopCurrent_v2(void **context) { ENTER; if (!depth) return INVALID_CONTEXT; *context = contexts[--depth]; return OK; }
API Code cuCtxGetDevice(int *device) { ENTER_CONTEXT; *device = (int)((char *)contexts[depth - 1] - (char *)&primary); return OK; }
API Code cuCtxSynchronize(void) {
    ENTER_CONTEXT;
    /* It ends every capture in the context, whoever makes it: seen on an H100, driver 580. */
    for (int i = 0; i < num_streams; i++) if (streams[i].capturing && !streams[i].destroyed) return violation("waited for a context with a capture");
    run_everything();
    return sticky;
}

API Code cuStreamCreate(void **stream, unsigned flags) {
    ENTER_CONTEXT;
    (void)flags;
    if (num_streams == 256) abort();
    *stream = &streams[num_streams++];
    count("live_streams", 1);
    return OK;
}
API Code cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) { (void)priority; return cuStreamCreate(stream, flags); }
API Code cuStreamDestroy_v2(void *stream) {
    ENTER_CONTEXT;
    Stream *s = stream_of(stream);
    if (s == &null_stream || s->destroyed) return violation("a stream destroyed that is not ours to destroy");
    run_all(s);
    s->destroyed = 1;
    count("live_streams", -1);
    return OK;
}
API Code cuStreamSynchronize(void *stream) {
    ENTER_CONTEXT;
    Stream *s = stream_of(stream);
    if (s->capturing) return violation("waited for a stream that is being captured"), CAPTURE_UNSUPPORTED;
    run_all(s);
    return sticky;
}
API Code cuStreamBeginCapture_v2(void *stream, int mode) {
    ENTER_CONTEXT;
    (void)mode;
    Stream *s = stream_of(stream);
    if (s == &null_stream || s->capturing) return CAPTURE_UNSUPPORTED;
    s->capturing = 1;
    return OK;
}
API Code cuStreamEndCapture(void *stream, void **graph) {
    ENTER_CONTEXT;
    Stream *s = stream_of(stream);
    if (!s->capturing) return violation("ended a capture that was not begun");
    Graph *g = malloc(sizeof *g);
    g->ops = s->captured;
    s->captured = s->captured_last = NULL;
    s->capturing = 0;
    count("live_graphs", 1);
    *graph = g;
    return OK;
}
API Code cuStreamIsCapturing(void *stream, int *status) { ENTER; *status = stream_of(stream)->capturing; return OK; }
API Code cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags) {
    ENTER_CONTEXT;
    (void)flags;
    Graph *g = malloc(sizeof *g);
    *g = *(Graph *)graph; /* the operations live on */
    *exec = g;
    count("live_execs", 1);
    return OK;
}
API Code cuGraphDestroy(void *graph) { ENTER_CONTEXT; free(graph); count("live_graphs", -1); return OK; }
API Code cuGraphLaunch(void *exec, void *stream) {
    ENTER_CONTEXT;
    for (Op *op = ((Graph *)exec)->ops; op; op = op->next) enqueue(stream, *op);
    return OK;
}
API Code cuGraphExecDestroy(void *exec) { ENTER_CONTEXT; free(exec); count("live_execs", -1); return OK; }

API Code cuMemAlloc_v2(Address *address, size_t bytes) {
    ENTER_CONTEXT;
    unsigned char *base;
    Code code = new_block(&base, bytes, 0);
    if (!code) *address = TAG + (Address)base;
    return code;
}
API Code cuMemFree_v2(Address address) {
    ENTER_CONTEXT;
    for (int i = 0; i < num_streams; i++) if (streams[i].first) violation("cuMemFree while work is under way");
    return drop_block(at(address), 0);
}
API Code cuMemAllocAsync(Address *address, size_t bytes, void *stream) {
    ENTER_CONTEXT;
    if (stream_of(stream)->capturing) violation("allocated while capturing");
    if (!setting("pools")) return 801;
    unsigned char *base;
    Code code = new_block(&base, bytes, 0);
    if (!code) *address = TAG + (Address)base;
    return code;
}
API Code cuMemFreeAsync(Address address, void *stream) {
    ENTER_CONTEXT;
    if (!live(address, 1)) return violation("freed an address that is not live");
    return enqueue(stream, (Op){.kind = FREE, .dst = address});
}
API Code cuMemHostAlloc(void **pointer, size_t bytes, unsigned flags) { ENTER_CONTEXT; (void)flags; return new_block((unsigned char **)pointer, bytes, 1); }
API Code cuMemFreeHost(void *pointer) { ENTER_CONTEXT; return drop_block(pointer, 1); }
API Code cuMemcpyHtoDAsync_v2(Address dst, const void *src, size_t bytes, void *stream) {
    ENTER_CONTEXT;
    return enqueue(stream, (Op){.kind = H2D, .dst = dst, .host = (void *)src, .bytes = bytes});
}
API Code cuMemcpyDtoHAsync_v2(void *dst, Address src, size_t bytes, void *stream) {
    ENTER_CONTEXT;
    return enqueue(stream, (Op){.kind = D2H, .src = src, .host = dst, .bytes = bytes});
}
API Code cuMemcpyDtoDAsync_v2(Address dst, Address src, size_t bytes, void *stream) {
    ENTER_CONTEXT;
    return enqueue(stream, (Op){.kind = D2D, .dst = dst, .src = src, .bytes = bytes});
}
API Code cuMemsetD8Async(Address dst, unsigned char value, size_t bytes, void *stream) {
    ENTER_CONTEXT;
    return enqueue(stream, (Op){.kind = FILL, .dst = dst, .value = value, .bytes = bytes});
}

API Code cuEventCreate(void **event, unsigned flags) { ENTER_CONTEXT; (void)flags; *event = calloc(1, sizeof(Event)); count("live_events", 1); return OK; }
API Code cuEventDestroy_v2(void *event) {
    ENTER_CONTEXT;
    if (!((Event *)event)->queued) free(event);
    count("live_events", -1);
    return OK;
}
API Code cuEventRecord(void *event, void *stream) {
    ENTER_CONTEXT;
    Event *e = event;
    e->recorded = 1, e->passed = 0, e->queued++;
    return enqueue(stream, (Op){.kind = MARK, .event = e});
}
/* Every question lets each stream take one step, so that asking again and again ends. */
API Code cuEventQuery(void *event) {
    ENTER_CONTEXT;
    for (int i = 0; i < num_streams; i++) if (streams[i].first) run_first(&streams[i]);
    if (null_stream.first) run_first(&null_stream);
    Event *e = event;
    return e->recorded && !e->passed ? NOT_READY : sticky;
}
API Code cuEventSynchronize(void *event) {
    ENTER_CONTEXT;
    Event *e = event;
    for (int i = 0; i < num_streams; i++) while (e->recorded && !e->passed && streams[i].first) run_first(&streams[i]);
    while (e->recorded && !e->passed && null_stream.first) run_first(&null_stream);
    count("event_waits", 1);
    return sticky;
}
API Code cuEventElapsedTime(float *milliseconds, void *start_event, void *end_event) {
    ENTER_CONTEXT;
    if (!((Event *)start_event)->passed || !((Event *)end_event)->passed) return NOT_READY;
    *milliseconds = 1.5f;
    return OK;
}

API Code cuModuleLoadDataEx(void **module, const void *image, unsigned n, int *options, void **values) {
    ENTER_CONTEXT;
    if (setting("jit")) {
        for (unsigned i = 0; i + 1 < n; i++)
            if (options[i] == 5 && options[i + 1] == 6)
                snprintf(values[i], (size_t)values[i + 1], "ptxas application ptx input, line 7; fatal : made up");
        return (Code)setting("jit");
    }
    Module *m = malloc(sizeof *m);
    *m = (Module){strdup(image), 1};
    count("live_modules", 1);
    *module = m;
    return OK;
}
API Code cuModuleUnload(void *module) {
    ENTER_CONTEXT;
    for (int i = 0; i < num_streams; i++)
        for (Op *op = streams[i].first; op; op = op->next)
            if (op->kind == LAUNCH && op->function->module == module) violation("a module unloaded that is still to run");
    ((Module *)module)->live = 0;
    count("live_modules", -1);
    return OK;
}
API Code cuModuleGetFunction(void **function, void *module, const char *name) {
    ENTER_CONTEXT;
    char entry[128];
    snprintf(entry, sizeof entry, ".entry %s(", name);
    char *found = strstr(((Module *)module)->text, entry), *bytes = found ? strchr(found, '[') : NULL;
    if (!bytes) return NOT_FOUND;
    Function *f = calloc(1, sizeof *f);
    *f = (Function){module, strtoul(bytes + 1, NULL, 10), 48 << 10};
    *function = f;
    return OK;
}
API Code cuFuncGetAttribute(int *value, int attribute, void *function) { ENTER_CONTEXT; (void)function; *value = attribute == 1 ? 1024 : 0; return OK; }
API Code cuFuncSetAttribute(void *function, int attribute, int value) {
    ENTER_CONTEXT;
    if (attribute != 8 || value + 1024 > setting("shared_optin")) return INVALID_VALUE;
    ((Function *)function)->shared_limit = value;
    return OK;
}
static Code launch(Function *f, const unsigned *grid, const unsigned *block, unsigned shared, unsigned attribute,
                   unsigned attribute_value, void *stream, void **params, void **extra) {
    if (extra || !params || f->param_bytes > sizeof last_launch.params || !f->module->live) return INVALID_VALUE;
    if (shared > f->shared_limit) return INVALID_VALUE;
    for (int i = 0; i < 3; i++) if (!grid[i] || !block[i]) return INVALID_VALUE;
    memcpy(last_launch.grid, grid, 12);
    memcpy(last_launch.block, block, 12);
    last_launch.shared = shared, last_launch.attribute = attribute, last_launch.attribute_value = attribute_value;
    last_launch.param_bytes = f->param_bytes;
    memcpy(last_launch.params, params[0], f->param_bytes);
    Op op = {.kind = LAUNCH, .function = f, .bytes = f->param_bytes};
    memcpy(op.params, params[0], f->param_bytes);
    count("launches", 1);
    return enqueue(stream, op);
}
API Code cuLaunchKernel(void *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                        void *stream, void **params, void **extra) {
    ENTER_CONTEXT;
    return launch(f, (unsigned[]){gx, gy, gz}, (unsigned[]){bx, by, bz}, shared, 0, 0, stream, params, extra);
}
typedef struct { unsigned id; char pad[4]; unsigned value[16]; } Attribute;
typedef struct { unsigned grid[3], block[3], shared; void *stream; Attribute *attributes; unsigned count; } Config;
API Code cuLaunchKernelEx(const Config *config, void *f, void **params, void **extra) {
    ENTER_CONTEXT;
    Attribute *a = config->count == 1 ? config->attributes : NULL;
    return launch(f, config->grid, config->block, config->shared, a ? a->id : 0, a ? a->value[0] : 0, config->stream, params, extra);
}
