// What inotify says about files and directories: order, names, cookies, masks, errors.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#define SHOW(e) do { errno = 0; long show_ = (long)(e); int error_ = errno; printf("%s: %ld %d\n", #e, show_, show_ < 0 ? error_ : 0); } while (0)

static int queue;
static unsigned cookies[8], cookie_count;
static unsigned cookie_of(unsigned cookie) {  // 1, 2, ... in the order of their coming
  if (cookie == 0) return 0;
  for (unsigned i = 0; i < cookie_count; ++i)
    if (cookies[i] == cookie) return i + 1;
  cookies[cookie_count % 8] = cookie;
  return ++cookie_count;
}
static void events(const char* what) {
  char bytes[8192] __attribute__((aligned(8)));
  int waiting = -1;
  ioctl(queue, FIONREAD, &waiting);
  ssize_t size = read(queue, bytes, sizeof bytes);
  printf("%s: %zd of %d\n", what, size, waiting);
  for (char* at = bytes; at < bytes + size;) {
    struct inotify_event* event = (void*)at;
    printf("  watch %d %x cookie %u %u %s\n", event->wd, event->mask, cookie_of(event->cookie), event->len, event->len > 0 ? event->name : "");
    at += sizeof *event + event->len;
  }
}

int main(void) {
  char folder[] = "/tmp/inotify-XXXXXX";
  if (mkdtemp(folder) == 0 || chdir(folder) != 0) return 1;
  queue = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  printf("flags %d %d\n", !!(fcntl(queue, F_GETFL) & O_NONBLOCK), fcntl(queue, F_GETFD));
  SHOW(inotify_init1(1));
  SHOW(inotify_add_watch(queue, "missing", IN_ALL_EVENTS));
  SHOW(inotify_add_watch(queue, ".", 0));
  SHOW(inotify_add_watch(0, ".", IN_ALL_EVENTS));
  SHOW(inotify_rm_watch(queue, 7));
  SHOW(inotify_add_watch(queue, ".", IN_ALL_EVENTS));
  SHOW(read(queue, &cookies, sizeof cookies));
  struct pollfd ready = {.fd = queue, .events = POLLIN};
  SHOW(poll(&ready, 1, 0));
  int fd = open("file", O_RDWR | O_CREAT, 0644);
  SHOW(poll(&ready, 1, 0));
  SHOW(read(queue, &cookies, 8));
  memset(cookies, 0, sizeof cookies);
  write(fd, "abc", 3), write(fd, "def", 3);  // one event
  pread(fd, &ready, 3, 0);
  close(fd);
  events("made, written, read");
  SHOW(inotify_add_watch(queue, "file", IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_CLOSE_WRITE));
  SHOW(inotify_add_watch(queue, "file", IN_MODIFY | IN_MASK_CREATE));
  SHOW(inotify_add_watch(queue, "file", IN_ONLYDIR | IN_MODIFY));
  fd = open("file", O_WRONLY | O_TRUNC);
  write(fd, "x", 1);
  fchmod(fd, 0600);
  ftruncate(fd, 5);
  close(fd);
  events("watched by both");
  mkdir("folder", 0755);
  SHOW(inotify_add_watch(queue, "folder", IN_CREATE | IN_DELETE | IN_MOVE | IN_DELETE_SELF));
  rename("file", "folder/other name");
  events("moved");
  symlink("nowhere", "folder/link");
  unlink("folder/link");
  events("made and unlinked");
  close(open("new", O_WRONLY | O_CREAT, 0644));
  rename("new", "folder/other name");
  events("replaced");
  SHOW(inotify_add_watch(queue, "folder", IN_MOVE_SELF | IN_ATTRIB | IN_MASK_ADD));
  chmod("folder", 0700);
  rename("folder", "renamed");
  unlink("renamed/other name");
  rmdir("renamed");
  events("gone");
  SHOW(inotify_add_watch(queue, ".", IN_CREATE | IN_ONESHOT));
  close(open("a", O_WRONLY | O_CREAT, 0644)), close(open("b", O_WRONLY | O_CREAT, 0644));
  events("once");
  SHOW(inotify_add_watch(queue, ".", IN_DELETE));
  SHOW(inotify_rm_watch(queue, 5) == 0 || inotify_rm_watch(queue, 4) == 0);
  events("removed");
  unlink("a"), unlink("b");
  SHOW(read(queue, &cookies, sizeof cookies));
  chdir("/"), rmdir(folder);
  return 0;
}
