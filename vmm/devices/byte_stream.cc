// See vmm/devices/byte_stream.h.
#include "vmm/devices/byte_stream.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace husk::vmm {
namespace {

constexpr int kPipeSize = 1 << 20;  // fewer switches between us and the process at the other end

int reopen(int fd, int flags) {
  char path[32];
  snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
  return open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

}  // namespace

HostStream::HostStream(int fd, Direction direction) : fd_(fd) {
  struct stat status;
  if (fd < 0 || fstat(fd, &status) != 0) {
    fd_ = -1;
  } else if (S_ISREG(status.st_mode) || S_ISBLK(status.st_mode)) {
    mode_ = Mode::plain;
  } else if (S_ISSOCK(status.st_mode)) {
    mode_ = Mode::socket;
  } else if (S_ISFIFO(status.st_mode)) {
    int now = fcntl(fd, F_GETPIPE_SZ);
    if (now > 0 && now < kPipeSize) (void)fcntl(fd, F_SETPIPE_SZ, kPipeSize);
  } else if (isatty(fd)) {
    own_ = host::FileDescriptor(reopen(fd, direction == Direction::in ? O_RDONLY : O_WRONLY));
    mode_ = own_ ? Mode::plain : Mode::polled;
  }
}

int HostStream::watch_fd() {
  if (!watched_) watched_ = host::FileDescriptor(fcntl(fd(), F_DUPFD_CLOEXEC, 3));
  return watched_.get();
}

ssize_t HostStream::transfer(std::span<const iovec> buffers, Direction direction) {
  bool in = direction == Direction::in;
  int count = static_cast<int>(std::min<size_t>(buffers.size(), IOV_MAX));
  iovec first = buffers[0];
  const iovec* vector = buffers.data();
  if (mode_ == Mode::polled) {
    pollfd ready{fd(), static_cast<short>(in ? POLLIN : POLLOUT), 0};
    int count_ready = poll(&ready, 1, 0);
    if (count_ready == 0) return -EAGAIN;
    if (count_ready < 0) return -errno;
    if (!in) {  // POLLOUT promises room for PIPE_BUF bytes only
      first.iov_len = std::min<size_t>(first.iov_len, PIPE_BUF);
      vector = &first;
      count = 1;
    }
  }
  ssize_t result;
  if (mode_ == Mode::socket) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(vector);
    message.msg_iovlen = static_cast<size_t>(count);
    result = in ? recvmsg(fd(), &message, MSG_DONTWAIT) : sendmsg(fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } else if (mode_ == Mode::no_wait) {
    result = in ? preadv2(fd(), vector, count, -1, RWF_NOWAIT) : pwritev2(fd(), vector, count, -1, RWF_NOWAIT);
  } else {
    result = in ? readv(fd(), vector, count) : writev(fd(), vector, count);
  }
  return result < 0 ? -errno : result;
}

ssize_t HostStream::read(std::span<const iovec> buffers) {
  if (fd_ < 0 || buffers.empty()) return 0;
  if (!ready_) return -EAGAIN;
  for (;;) {
    ssize_t result = transfer(buffers, Direction::in);
    if (result == -EOPNOTSUPP && mode_ == Mode::no_wait) mode_ = Mode::polled;
    else if (result == -EAGAIN) return ready_ = always_ready_, result;
    else if (result != -EINTR) return result;
  }
}

ssize_t HostStream::write(std::span<const iovec> buffers) {
  if (fd_ < 0) return -EPIPE;
  if (!ready_) return -EAGAIN;
  for (;;) {
    ssize_t result = transfer(buffers, Direction::out);
    if (result == -EOPNOTSUPP && mode_ == Mode::no_wait) mode_ = Mode::polled;
    else if (result == -EAGAIN) return ready_ = always_ready_, result;
    else if (result != -EINTR) return result;
  }
}

}  // namespace husk::vmm
