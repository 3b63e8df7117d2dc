// flags: -pthread
// Identity and limits that programs ask for; answers that must be sane anywhere.
#define _GNU_SOURCE
#include <errno.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
int main(void) {
  struct utsname u;
  int result = uname(&u);
  printf("%d %s %s\n", result, u.sysname, u.machine);
  printf("%d %d %d %d\n", getuid(), geteuid(), getgid(), getegid());
  printf("%d %d\n", getpid() > 0, getpid() == (int)syscall(SYS_gettid));
  struct passwd* pw = getpwuid(0);
  printf("%s\n", pw ? pw->pw_name : "none");
  struct sysinfo info;
  result = sysinfo(&info);
  printf("%d %d\n", result, info.totalram > 0);
  cpu_set_t set;
  result = sched_getaffinity(0, sizeof set, &set);
  printf("%d %d\n", result, CPU_COUNT(&set) >= 1);
  printf("%d %d\n", sched_getcpu() >= 0, sysconf(_SC_NPROCESSORS_ONLN) >= 1);
  struct rlimit limit;
  result = getrlimit(RLIMIT_NOFILE, &limit);
  printf("%d %d\n", result, limit.rlim_cur >= 256);
  result = getrlimit(RLIMIT_STACK, &limit);
  printf("%d %d\n", result, limit.rlim_cur >= 1 << 20);
  struct rusage usage;
  printf("%d\n", getrusage(RUSAGE_SELF, &usage));
  char name[16] = {0};
  prctl(PR_SET_NAME, "renamed");
  prctl(PR_GET_NAME, name);
  puts(name);
  char bytes[32], other[32];
  long first = getrandom(bytes, 32, 0), second = getrandom(other, 32, GRND_NONBLOCK);
  printf("%ld %ld %d\n", first, second, memcmp(bytes, other, 32) != 0);
  errno = 0;
  result = wait(0);
  printf("%d %d\n", result, errno == ECHILD);
  printf("%d %d\n", sched_get_priority_min(SCHED_OTHER), sched_get_priority_max(SCHED_FIFO));
  errno = 0;
  result = syscall(1000);
  printf("%d %d\n", result, errno == ENOSYS);
  errno = 0;
  printf("%ld\n", syscall(SYS_membarrier, 0, 0, 0) >= 0 ? 1L : 0L);
  errno = 0;
  result = syscall(SYS_clone3, 0, 0);
  printf("%d %d\n", result, errno == EINVAL || errno == ENOSYS || errno == EFAULT);
  time_t t = 86400;
  struct tm* tm = gmtime(&t);
  printf("%d-%d-%d\n", tm->tm_year, tm->tm_mon, tm->tm_mday);
  printf("%d ", nice(5));
  printf("%d %d\n", getpriority(PRIO_PROCESS, 0), setpriority(9, 0, 0));
  errno = 0;
  printf("%d ", sched_getaffinity(-1, sizeof set, &set));
  printf("%d\n", errno);
  printf("%d ", prlimit(-1, RLIMIT_AS, 0, 0));
  printf("%d\n", errno);
  FILE* maps = fopen("/proc/self/maps", "r");
  char line[512];
  int stack = 0, heap = 0, lines = 0;
  while (fgets(line, sizeof line, maps)) stack |= !!strstr(line, "[stack]"), heap |= !!strstr(line, "[heap]"), ++lines;
  printf("%d %d\n", stack, lines > 5);
  FILE* status = fopen("/proc/self/status", "r");
  int threads = 0;
  while (fgets(line, sizeof line, status)) sscanf(line, "Threads: %d", &threads);
  printf("%d\n", threads);
  // Last, the user may do nothing more on Linux. By the library's functions and by number: husk answers them in different places.
  errno = 0;
  result = setresgid(5, 6, 7);
  printf("%d %d: %d %d, %ld %ld\n", result, errno, getgid(), getegid(), syscall(SYS_getgid), syscall(SYS_getegid));
  result = setresuid(8, 9, 10);
  printf("%d %d: %d %d, %ld %ld\n", result, errno, getuid(), geteuid(), syscall(SYS_getuid), syscall(SYS_geteuid));
  printf("%d %d\n", getpid() == syscall(SYS_getpid), getppid() == syscall(SYS_getppid));
  return 0;
}
