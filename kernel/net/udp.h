// UDP sockets (RFC 768), and raw ICMP sockets for ping (SOCK_DGRAM with IPPROTO_ICMP). Nothing blocks; observers hear of changes.
#pragma once

#include "base/ref.h"
#include "base/result.h"
#include "kernel/net/address.h"
#include "kernel/net/events.h"
#include "kernel/packet/packet.h"
#include "kernel/vfs/io.h"

namespace husk::net::udp {

struct Options {
  bool reuse_address = false, reuse_port = false, broadcast = false, v6_only = false;
  bool packet_information = false;  // IP_PKTINFO
  bool receive_errors = false;      // IP_RECVERR: soft ones too, and unconnected; there is no queue of them
  u32 send_buffer = 212992, receive_buffer = 212992;
  u8 traffic_class = 0, hop_limit = 0, multicast_hops = 1;
  u16 packet_max = 0;  // IPV6_MTU: longer IPv6 packets are cut; 0: as the path needs
  bool multicast_loop = true;
  bool multicast_all = true;  // IP_MULTICAST_ALL: what other sockets have joined
};

struct Datagram {     // of a received datagram
  Endpoint from, to;  // to.interface: where it came in
  size_t size = 0;    // its whole size; what did not fit is lost
  u8 hop_limit = 0, traffic_class = 0;
};

class Socket : public RefCounted<Socket> {
 public:
  virtual ~Socket() = default;
  virtual void set_observer(SocketObserver* observer) = 0;
  virtual Result<void> bind(const Endpoint& local) = 0;      // EADDRINUSE, EADDRNOTAVAIL, EINVAL
  virtual Result<void> connect(const Endpoint& remote) = 0;  // ENETUNREACH; port 0 and any-address: disconnects (AF_UNSPEC)
  virtual Result<void> disconnect() = 0;
  // One datagram of from.remaining() bytes; `to` null: where it is connected to (EDESTADDRREQ). EMSGSIZE, EACCES (broadcast), ENETUNREACH, EAGAIN, ENOBUFS. A
  // pending error comes first. `source`: IP_PKTINFO, may be null.
  virtual Result<size_t> send(vfs::IoBuffer& from, const Endpoint* to, const Endpoint* source) = 0;
  // EAGAIN, even after shutdown (kReadHangUp in events() tells); a pending error.
  enum class Peek : bool { no, yes };
  virtual Result<Datagram> receive(vfs::IoBuffer& to, Peek peek) = 0;
  virtual Result<void> join(const IpAddress& group, u32 interface) = 0;
  virtual Result<void> leave(const IpAddress& group, u32 interface) = 0;
  virtual Result<void> shutdown(int how) = 0;  // ENOTCONN: not connected, but done all the same, as on Linux
  virtual void close() = 0;
  virtual u32 events() = 0;
  virtual int take_error() = 0;
  virtual Endpoint local() const = 0;
  virtual Endpoint remote() const = 0;        // port 0: not connected
  virtual size_t readable_bytes() const = 0;  // size of the next datagram
  virtual size_t queued_bytes() const = 0;    // all, for /proc/net/udp
  virtual const Options& options() const = 0;
  virtual void set_options(const Options& options) = 0;
};

}  // namespace husk::net::udp
