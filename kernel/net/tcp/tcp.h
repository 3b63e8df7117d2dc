// TCP (RFC 9293 and the RFCs that its README lists): connections, listeners, timers; no clock and no device of its own.
//
// Time comes as an argument or through Lower::now_ns(); segments go out through Lower. Nothing here blocks: calls that would give EAGAIN or EINPROGRESS, and
// the socket's observer hears when to try again. Called by net::Stack (below) and linux/inet_stream (above); one vCPU at a time.
#pragma once

#include "base/ref.h"
#include "base/result.h"
#include "kernel/net/address.h"
#include "kernel/net/events.h"
#include "kernel/net/tcp/segment.h"
#include "kernel/packet/packet.h"
#include "kernel/vfs/io.h"

namespace husk::net::tcp {

using packet::PacketPtr;

// What TCP needs of the layers below. Stack implements it; tests and the simulator have their own.
class Lower {
 public:
  struct Route {
    IpAddress local;       // the source address for this destination
    u16 mtu;               // of the path, for IP packets
    u32 segmentation_max;  // payload bytes that one output() may carry; 0: one segment only
  };
  virtual u64 now_ns() = 0;                                                         // monotonic
  virtual Result<Route> route(const Endpoint& remote, const IpAddress& bound) = 0;  // ENETUNREACH; EADDRNOTAVAIL: `bound` is not ours
  virtual bool is_local(const IpAddress& address) = 0;                              // may be bound
  // Sends one segment; with segment_size > 0 it is to be cut into pieces of that much payload. The payload has no headers yet; null: none.
  // What cannot be sent is lost, as on a network.
  virtual void output(const Flow& flow, const Segment& segment, PacketPtr payload, u16 segment_size, u8 traffic_class, u8 hop_limit) = 0;
  virtual void random(void* to, size_t size) = 0;

 protected:
  ~Lower() = default;
};

enum class State : u8 { closed, listen, syn_sent, syn_received, established, fin_wait_1, fin_wait_2, close_wait, closing, last_ack, time_wait };
const char* name_of(State state);

struct Options {  // of a socket; a listener's are inherited
  bool no_delay = false, cork = false, quick_ack = true, keep_alive = false, reuse_address = false, reuse_port = false, v6_only = false;
  u32 keep_idle_s = 7200, keep_interval_s = 75, keep_count = 9;
  u32 send_buffer = 0, receive_buffer = 0;  // bytes; 0: automatic (grows with the connection)
  u32 user_timeout_ms = 0, defer_accept_s = 0;
  u32 linger_s = 0;
  bool linger = false;
  u16 maximum_segment = 0;
  u8 traffic_class = 0, hop_limit = 0;  // 0: the default
  u32 not_sent_low_water = ~0u;         // TCP_NOTSENT_LOWAT
};

struct Information {  // for TCP_INFO and /proc/net/tcp
  State state;
  u32 rto_us, rtt_us, rtt_variation_us, mss_send, mss_receive, unacknowledged, sacked, lost, retransmitted, congestion_window, slow_start_threshold;
  u32 send_queue, receive_queue, send_window, receive_window;
  u8 window_scale_send, window_scale_receive, retransmits, options;  // options: TCPI_OPT_*
  u64 bytes_acknowledged, bytes_received, segments_in, segments_out, total_retransmits;
};

class Tcp;

// A connection or a listener. The owner holds a reference and calls close() once; what is left (FIN, TIME_WAIT) lives on in Tcp without it.
class Socket : public RefCounted<Socket> {
 public:
  virtual ~Socket() = default;
  virtual void set_observer(SocketObserver* observer) = 0;  // null: nobody

  virtual Result<void> bind(const Endpoint& local) = 0;  // port 0: chosen. EADDRINUSE, EADDRNOTAVAIL, EINVAL (bound already)
  virtual Result<void> listen(u32 backlog) = 0;
  virtual Result<Ref<Socket>> accept() = 0;                  // EAGAIN; EINVAL: not listening
  virtual Result<void> connect(const Endpoint& remote) = 0;  // EINPROGRESS, EALREADY, EISCONN, ENETUNREACH, EADDRNOTAVAIL
  // Copies in what fits. EAGAIN; EPIPE; ENOTCONN; a pending error. `more`: MSG_MORE.
  enum class More : bool { no, yes };
  virtual Result<size_t> send(vfs::IoBuffer& from, More more) = 0;
  // Copies out what is there; 0 at the end of the stream. EAGAIN; ENOTCONN; a pending error. `peek` leaves it.
  enum class Peek : bool { no, yes };
  virtual Result<size_t> receive(vfs::IoBuffer& to, Peek peek) = 0;
  virtual Result<size_t> discard(size_t bytes) = 0;  // MSG_TRUNC
  virtual Result<void> shutdown(int how) = 0;        // 0 reading, 1 writing, 2 both. ENOTCONN
  virtual void close() = 0;                          // never blocks; unread data or linger 0: RST (RFC 9293 §3.10.4, RFC 2525 §2.17)

  virtual u32 events() = 0;      // SocketEvents now
  virtual int take_error() = 0;  // SO_ERROR: errno or 0, and forgets it
  virtual State state() const = 0;
  virtual bool sending_done() const = 0;  // everything sent is acknowledged, FIN included: for SO_LINGER
  virtual Endpoint local() const = 0;
  virtual Endpoint remote() const = 0;
  virtual size_t readable_bytes() const = 0;  // FIONREAD
  virtual size_t unsent_bytes() const = 0;    // SIOCOUTQNSD; unacknowledged too: Information::send_queue
  virtual const Options& options() const = 0;
  virtual void set_options(const Options& options) = 0;  // takes effect at once
  virtual Information information() const = 0;
};

class Tcp {
 public:
  struct Limits {
    u64 memory = 16 * kMiB;  // of all buffers; above it windows close and new connections are refused
    u32 connections = 65536;
    u32 half_open = 1024;  // per listener, before SYN cookies (RFC 4987)
    u32 send_buffer_max = 4 * kMiB, receive_buffer_max = 6 * kMiB;
    u16 port_first = 32768, port_last = 60999;
  };
  static Result<Owned<Tcp>> create(Lower& lower, const Limits& limits);
  virtual ~Tcp() = default;

  virtual Result<Ref<Socket>> socket(Family family) = 0;
  // A received segment whose checksum is right; `payload` holds exactly segment.payload_size bytes (may be null if 0). pieces: how many segments the device
  // merged into it.
  virtual void input(const Flow& flow, const Segment& segment, PacketPtr payload, u32 pieces) = 0;
  // ICMP said something about a segment that we sent with this sequence number (RFC 5927 §4). error: errno; mtu for EMSGSIZE, else 0.
  virtual void network_error(const Flow& flow, SeqNum sequence, int error, u16 mtu) = 0;
  // After each batch of input, and when a deadline has come: sends what is due, delayed acknowledgements last.
  virtual void run() = 0;
  virtual u64 next_deadline_ns() const = 0;  // ~0: none

  struct Statistics {  // names of /proc/net/snmp and netstat
    u64 active_opens, passive_opens, attempt_fails, estab_resets, current_established, in_segments, out_segments, retransmitted, in_errors,
        out_resets;
    u64 syn_cookies_sent, syn_cookies_received, syn_cookies_failed, listen_overflows, challenge_acks, paws_dropped, fast_retransmits, timeouts,
        duplicate_acks;
    u64 memory_used, sockets, time_wait;
  };
  virtual Statistics statistics() const = 0;
  // For /proc/net/tcp: every connection and listener, in no order.
  class Visitor {
   public:
    virtual void visit(const Flow& flow, const Information& information) = 0;

   protected:
    ~Visitor() = default;
  };
  virtual void visit(Visitor& visitor) const = 0;
};

}  // namespace husk::net::tcp
