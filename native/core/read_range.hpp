// Reads bytes of files: many in one call from Python, which holds no lock meanwhile.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace fl {

// Fills `out` from `offset` of an open file on; false where the file ends before or a read fails.
inline bool read_range(int descriptor, int64_t offset, uint8_t* out, size_t size) {
    for (size_t done = 0; done < size;) {
        const ssize_t count =
            pread(descriptor, out + done, size - done, off_t(offset) + off_t(done));
        if (count > 0) {
            done += size_t(count);
        } else if (count == 0 || errno != EINTR) {
            return false;
        }
    }
    return true;
}

// Reads a file of exactly `size` bytes; false where it has others, is a pipe, a folder or a device
// of characters (which have no such end), or a call fails. Not by fstat: glibc has that one as a
// symbol only from 2.33 on, and without it one build runs on glibc 2.17.
inline bool read_file(const char* path, uint8_t* out, size_t size) {
    const int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) return false;
    const bool whole =
        lseek(descriptor, 0, SEEK_END) == off_t(size) && read_range(descriptor, 0, out, size);
    close(descriptor);
    return whole;
}

// Asks the kernel for a file that will be read soon, in pieces of `step` bytes; this is advice.
inline void advise_file(const char* path, size_t size, size_t step) {
#ifdef POSIX_FADV_WILLNEED
    const int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) return;
    for (size_t at = 0; at < size; at += step)
        posix_fadvise(descriptor, off_t(at), off_t(size - at < step ? size - at : step),
                      POSIX_FADV_WILLNEED);
    close(descriptor);
#endif
}

}  // namespace fl
