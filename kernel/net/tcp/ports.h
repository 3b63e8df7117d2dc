// Which local ports are taken, and by whom: bind(2)'s rules, listeners by port, and the choice of a free port (RFC 6056).
//
// A port in use has a bucket with everything bound to it, also the connections that a listener accepted and those in TIME_WAIT: a server that
// restarts needs SO_REUSEADDR, as on Linux.
#pragma once

#include "base/list.h"
#include "base/vec.h"
#include "kernel/net/tcp/secrets.h"

namespace husk::net::tcp {

struct PortTag;
struct PortBucket;

// One holder of a local port. Connections and TIME_WAIT records derive from it.
struct Binding : ListNode<PortTag> {
  PortBucket* bucket = nullptr;
  IpAddress bound;  // any: of its family, or of both
  u32 bound_interface = 0;
  bool reuse_address = false, reuse_port = false, v6_only = false, listening = false;
  bool port_was_chosen = false;  // by connect(): others may share it for other destinations
};
using BindingList = List<Binding, PortTag>;

struct PortBucket {
  PortBucket* next = nullptr;
  u16 port = 0;
  BindingList listeners, others;
};

class Ports {
 public:
  Ports(Secrets& secrets, u16 first, u16 last) : secrets_(secrets), first_(first), last_(last) {}
  Result<void> init() { return buckets_.resize(64); }
  PortBucket* find(u16 port) const;
  // Puts the binding on the port without asking. ENOMEM.
  Result<void> attach(Binding& binding, u16 port);
  void detach(Binding& binding);
  void set_listening(Binding& binding, bool listening);
  static bool conflicts(const Binding& a, const Binding& b);
  bool is_free(u16 port, const Binding& binding) const;
  // bind(2) with port 0: a port where nothing conflicts; 0: none.
  u16 choose(const Binding& binding, u32 start) const;
  // connect(2): tries ports of the range in the order of RFC 6056 §3.3.4 until `usable` says yes; 0: none.
  template <typename Usable>
  u16 choose_for(const IpAddress& local, const Endpoint& remote, Usable&& usable) {
    u32 range = last_ - first_ + 1u;
    u16& counter = secrets_.port_counter(remote);
    u32 offset = secrets_.port_offset(local, remote);
    for (u32 i = 0; i < range; ++i) {
      u16 port = static_cast<u16>(first_ + (offset + counter++) % range);
      if (usable(port)) return port;
    }
    return 0;
  }
  template <typename Function>
  void for_each_listener(Function&& function) const {
    for (PortBucket* bucket : buckets_)
      for (PortBucket* after; bucket != nullptr; bucket = after) {
        after = bucket->next;
        Binding* last = bucket->listeners.back();
        for (Binding *binding = bucket->listeners.front(), *next; binding != nullptr; binding = next) {
          next = binding == last ? nullptr : &*++BindingList::Iterator(binding);
          function(*binding);
        }
      }
  }
  static bool covers(const Binding& binding, const IpAddress& address);

 private:
  Secrets& secrets_;
  Vec<PortBucket*> buckets_;
  size_t count_ = 0;
  u16 first_, last_;
};

}  // namespace husk::net::tcp
