// Stands in for kernel/net/tcp while that folder has no library: the network cannot be started.
#include "kernel/net/tcp/tcp.h"

namespace husk::net::tcp {

Result<Owned<Tcp>> Tcp::create(Lower&, const Limits&) { return Error(ENOSYS); }

}  // namespace husk::net::tcp
