// Sockets as open files, whatever the address family: what the socket calls of kernel/linux/sockets*.cc work on.
//
// AF_UNIX is in vfs/unix_socket.cc, AF_INET and AF_INET6 in linux/inet_*.cc, AF_NETLINK in linux/netlink.cc. Blocking as in vfs/file.h, with the
// socket's own time limits. read, write and FIONREAD are done here, by receive() and send().
#pragma once

#include <string.h>

#include "kernel/vfs/file.h"

namespace husk::vfs {

enum SocketTypes : int { kSocketStream = 1, kSocketDatagram = 2, kSocketSequential = 5 };  // SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET

enum MessageFlags : u32 {  // MSG_*
  kMessageOutOfBand = 0x1,
  kMessagePeek = 0x2,
  kMessageControlTruncated = 0x8,
  kMessageTruncated = 0x20,
  kMessageDontWait = 0x40,
  kMessageEndOfRecord = 0x80,
  kMessageWaitAll = 0x100,
  kMessageErrorQueue = 0x2000,
  kMessageNoSignal = 0x4000,
  kMessageMore = 0x8000,
};

// EINTR of a call with a time limit (SO_RCVTIMEO, SO_SNDTIMEO), which is never begun again: signal(7). Programs see EINTR.
constexpr int kInterruptedForGood = 512;

// A sockaddr as the program wrote it, its size checked against kMax only; the family judges the rest.
struct SocketAddress {
  static constexpr u32 kMax = 128;  // sizeof(struct sockaddr_storage)
  alignas(8) u8 bytes[kMax] = {};
  u32 size = 0;
  u16 family() const {
    u16 value = 0;
    if (size >= sizeof(value)) memcpy(&value, bytes, sizeof(value));
    return value;
  }
};

struct SocketCredentials {
  i32 pid = 0;
  u32 uid = 0, gid = 0;
};

// One control message (struct cmsghdr) other than SCM_RIGHTS and SCM_CREDENTIALS.
struct ControlData {
  int level, type;
  u32 size;
  u8 bytes[40];
};

struct SocketMessage {
  IoBuffer* data = nullptr;
  u32 flags = 0;                      // MSG_*; of receive() also out: MSG_TRUNC, MSG_CTRUNC, MSG_EOR
  const SocketAddress* to = nullptr;  // send: null if none was given
  SocketAddress* from = nullptr;      // receive: may be null; size 0: no address
  Vec<Ref<File>>* files = nullptr;    // SCM_RIGHTS; null: none to send, or no room to receive
  SocketCredentials* credentials = nullptr;
  Vec<ControlData>* control = nullptr;  // send: what was given (may be null); receive: filled in (null: no room)
  bool has_credentials = false;         // receive: *credentials was filled in
};

class Socket : public File {
 public:
  Socket(int domain, int type, int protocol, u32 file_flags);
  const int domain, type, protocol;
  u64 receive_timeout_ns = time::kForever, send_timeout_ns = time::kForever;  // SO_RCVTIMEO, SO_SNDTIMEO: lengths

  virtual Result<void> bind(const SocketAddress& address);
  virtual Result<void> listen(int backlog);
  virtual Result<Ref<Socket>> accept(SocketAddress* peer, u32 file_flags);
  virtual Result<void> connect(const SocketAddress& address);
  virtual Result<SocketAddress> name();
  virtual Result<SocketAddress> peer_name();
  virtual Result<size_t> send(SocketMessage& message) = 0;
  virtual Result<size_t> receive(SocketMessage& message) = 0;
  virtual Result<void> shutdown(int how);
  // Gives the size of the value, at most out.size() written. The calls know SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_RCVTIMEO and SO_SNDTIMEO. ENOPROTOOPT.
  virtual Result<size_t> get_option(int level, int option, std::span<u8> out);
  virtual Result<void> set_option(int level, int option, std::span<const u8> value);
  virtual Result<size_t> bytes_available() = 0;                 // FIONREAD; EINVAL: a listener
  virtual Result<i64> socket_ioctl(u32 request, u64 argument);  // SIOC*; ENOTTY

  Result<size_t> read(IoBuffer& buffer, const u64* offset) final;
  Result<size_t> write(IoBuffer& buffer, const u64* offset) final;
  Result<i64> ioctl(u32 request, u64 argument) final;
  Result<Stat> stat() final;
  Result<FileSystemStat> file_system_stat() final;
  Result<String> describe() final;

 protected:
  bool will_wait(u32 message_flags) const { return !nonblocking() && (message_flags & kMessageDontWait) == 0; }
  // For blocking calls: waits for a change of `queue` until the deadline. EAGAIN if nonblocking, MSG_DONTWAIT or late; EINTR or kInterruptedForGood.
  Result<void> wait(sched::WaitQueue& queue, u32 message_flags, u64 deadline_ns);
  // The same, when one waiter is enough for one event (accept): wake the queue with wake_one().
  Result<void> wait_exclusive(sched::WaitQueue& queue, u64 deadline_ns);
  static u64 deadline_of(u64 timeout_ns);

 private:
  Stat stat_;
};

}  // namespace husk::vfs
