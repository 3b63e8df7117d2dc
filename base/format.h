// A small, bounded printf: for logs, /proc files and panic messages in the guest.
//
// Supports %d %i %u %x %X %o %c %s %p %% with flags '-', '0', '+', ' ', '#', width, precision (and '*' for
// both), and the lengths hh h l ll z j t. Anything else is copied to the output. No floating point, no locale.
#pragma once

#include <stdarg.h>
#include <stddef.h>

namespace husk {

// Writes at most size bytes including the NUL; gives the length that the whole text has (snprintf(3)).
size_t format_to(char* buffer, size_t size, const char* format, ...) __attribute__((format(printf, 3, 4)));
size_t format_to_v(char* buffer, size_t size, const char* format, va_list arguments) __attribute__((format(printf, 3, 0)));

}  // namespace husk
