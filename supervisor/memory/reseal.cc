#include "supervisor/memory/reseal.h"

namespace kai {

Result<> reseal(Database& database, const MemoryTerms& terms, const char* select, const char* update,
                const std::function<std::string(const Statement&)>& place) {
  const std::int64_t wanted = terms.key ? 1 : 0;
  std::int64_t id = 0;
  for (;;) {
    std::string value;
    {
      auto row = database.prepare(select);
      if (!row) return tl::unexpected(row.error());
      const auto found = (*row)->bind(1, id).bind(2, wanted).step();
      if (!found) return tl::unexpected(found.error());
      if (!*found) return {};
      id = (*row)->number(0);
      value = (*row)->text(2);
      const std::string where = place(**row);
      if (terms.key) {
        value = seal(*terms.key, value, where);
      } else {
        auto plain = terms.old_key ? unseal(*terms.old_key, value, where) : std::nullopt;
        if (!plain) return failure("decrypt the agent's memory", "a value was not sealed with its key");
        value = *std::move(plain);
      }
    }
    auto statement = database.prepare(update);
    if (!statement) return tl::unexpected(statement.error());
    if (auto done = (*statement)->bind_blob(1, value).bind(2, wanted).bind(3, id).run(); !done) return done;
  }
}

}  // namespace kai
