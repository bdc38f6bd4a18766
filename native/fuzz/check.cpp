// Fuzzes fl_check: any bytes give facts or a reason.
#include "../check.hpp"

#include <cstdlib>
#include <cstring>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    fl::Facts facts;
    const int status = fl::check(data, size, fl::scan_memory(), &facts);
    if (status != facts.status || std::strlen(facts.reason) == 0) std::abort();
    if (status == fl::kOk && (facts.height < 1 || facts.width < 1)) std::abort();
    return 0;
}
