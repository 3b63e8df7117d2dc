// See host/file_descriptor.h.
#include "host/file_descriptor.h"

#include <unistd.h>

namespace husk::host {

void FileDescriptor::reset() {
  int fd = release();
  if (fd >= 0) close(fd);
}

}  // namespace husk::host
