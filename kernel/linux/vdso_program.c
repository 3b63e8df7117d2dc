/* The text of the vDSO: runs in the program, without the kernel. vdso(7). Built by itself into a small shared object.
   The clock page lies directly below it (vdso.cc writes it: a sequence number that is odd while it changes, then the parameters). */
#include <stdint.h>

struct clock_page {
  uint32_t sequence, pad;
  uint64_t base_ticks, multiplier, shift, realtime_offset_ns;
};
extern const volatile struct clock_page husk_clock_page __attribute__((visibility("hidden")));

struct timespec {
  int64_t seconds, nanoseconds;
};
struct timeval {
  int64_t seconds, microseconds;
};

enum { kRealtime = 0, kMonotonic = 1, kMonotonicRaw = 4, kRealtimeCoarse = 5, kMonotonicCoarse = 6, kBootTime = 7, kTai = 11 };
static const uint64_t kSecond = 1000000000;

static uint64_t read_ns(int realtime) {
  for (;;) {
    uint32_t before = husk_clock_page.sequence;
    uint32_t low, high;
    __asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
    uint64_t ticks = ((uint64_t)high << 32 | low) - husk_clock_page.base_ticks;
    uint64_t ns = (uint64_t)((unsigned __int128)ticks * husk_clock_page.multiplier >> husk_clock_page.shift);
    if (realtime) ns += husk_clock_page.realtime_offset_ns;
    __asm__ volatile("" : : : "memory");
    if ((before & 1) == 0 && husk_clock_page.sequence == before) return ns;
  }
}

static long system_call(long number, long a, long b) {
  long result;
  /* As the image builder writes system calls (image/rewrite/README.md): the `syscall` instruction is only for restarts. */
  __asm__ volatile("lea 1f(%%rip), %%rcx\n\tjmp *%%gs:0\n\tsyscall\n1:"
                   : "=a"(result) : "a"(number), "D"(a), "S"(b) : "rcx", "r11", "memory");
  return result;
}

#define ALIAS(name) __attribute__((weak, alias("__vdso_" #name)))

int __vdso_clock_gettime(int clock, struct timespec* out) {
  uint64_t ns;
  switch (clock) {
    case kRealtime: case kRealtimeCoarse: case kTai: ns = read_ns(1); break;
    case kMonotonic: case kMonotonicRaw: case kMonotonicCoarse: case kBootTime: ns = read_ns(0); break;
    default: return (int)system_call(228, clock, (long)out);
  }
  out->seconds = (int64_t)(ns / kSecond);
  out->nanoseconds = (int64_t)(ns % kSecond);
  return 0;
}

int __vdso_clock_getres(int clock, struct timespec* out) { return (int)system_call(229, clock, (long)out); }

int __vdso_gettimeofday(struct timeval* out, void* zone) {
  if (out != 0) {
    uint64_t microseconds = read_ns(1) / 1000;
    out->seconds = (int64_t)(microseconds / 1000000);
    out->microseconds = (int64_t)(microseconds % 1000000);
  }
  if (zone != 0) *(uint64_t*)zone = 0;
  return 0;
}

int64_t __vdso_time(int64_t* out) {
  int64_t seconds = (int64_t)(read_ns(1) / kSecond);
  if (out != 0) *out = seconds;
  return seconds;
}

long __vdso_getcpu(uint32_t* processor, uint32_t* node, void* unused) {
  (void)unused;
  if (processor != 0) *processor = 0;
  if (node != 0) *node = 0;
  return 0;
}

int clock_gettime(int clock, struct timespec* out) ALIAS(clock_gettime);
int clock_getres(int clock, struct timespec* out) ALIAS(clock_getres);
int gettimeofday(struct timeval* out, void* zone) ALIAS(gettimeofday);
int64_t time(int64_t* out) ALIAS(time);
long getcpu(uint32_t* processor, uint32_t* node, void* unused) ALIAS(getcpu);

/* The ELF entry point. A signal frame returns here to make an interrupted system call again: rax is its number, rcx the
   address behind it. This is how rewritten programs enter the kernel, and rcx is where the kernel returns to. */
__asm__(".text\n.globl __husk_restart\n.hidden __husk_restart\n.type __husk_restart, @function\n"
        "__husk_restart: jmp *%gs:0\n.size __husk_restart, . - __husk_restart\n");
