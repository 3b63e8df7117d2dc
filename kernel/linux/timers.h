// Timers that send signals: what the death of a process must stop.
#pragma once
#undef linux

namespace husk::linux {

struct Process;
void delete_timers(Process& process);        // all of them
void delete_posix_timers(Process& process);  // those of timer_create(2): execve keeps setitimer(2)

}  // namespace husk::linux
