// What others need of TCP sockets besides inet_socket.h: the end of the machine (network.cc).
#pragma once
#undef linux

#include "kernel/net/tcp/tcp.h"

namespace husk::linux {

// The program is over: everything is closed, and nothing lingers any more.
void close_all_streams();
bool streams_have_unsent_data(net::tcp::Tcp& tcp);

}  // namespace husk::linux
