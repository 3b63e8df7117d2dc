// The tests of this folder have a TCP that only takes notes.
#include "kernel/net/test_support.h"

namespace husk::net::tcp {

Result<Owned<Tcp>> Tcp::create(Lower& lower, const Limits&) { return Owned<Tcp>(new net::testing::FakeTcp(lower)); }

}  // namespace husk::net::tcp
