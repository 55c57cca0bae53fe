// Two ways to run on several threads.
//
// OpenMP's idle threads keep spinning for a while after each parallel region, so that a second pool finds the cores
// busy. Where a process has an OpenMP runtime loaded by somebody else (PyTorch brings one), the remedy is to run in
// that very runtime: its one entry, GOMP_parallel, is looked up in the library that is already there; we link to none.
// Otherwise a pool of our own runs: threads that sleep between calls.
//
// Neither survives a fork: a child process has only the thread that forked. The child starts over with a pool of our
// own, since calling the parent's OpenMP runtime would wait for threads that do not exist.
#include "pool.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <string.h>
#endif

namespace dropkit {

namespace {

struct Job {
    int64_t parts;
    void (*part)(void*, int64_t, int64_t);
    void* context;
};

// ---- a pool of our own

class Pool {
  public:
    // False if another thread of this process is using the pool.
    bool run(const Job& job, int threads) {
        std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
        if (!owner.owns_lock()) return false;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            hire(threads - 1);
            job_ = job;
            next_ = 0;
            active_ = workers_ < threads - 1 ? workers_ : threads - 1;
            running_ = active_;
            ++call_;
        }
        wake_.notify_all();
        take(job);
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return running_ == 0; });
        return true;
    }

  private:
    std::mutex owner_, mutex_;
    std::condition_variable wake_, done_;
    Job job_ = {};
    std::atomic<int64_t> next_{0};
    int workers_ = 0, active_ = 0, running_ = 0;
    uint64_t call_ = 0;

    // Where the system grants no more threads, those that there are do the work.
    void hire(int wanted) {
        try {
            while (workers_ < wanted) {
                std::thread(&Pool::work, this, workers_ + 1).detach();
                ++workers_;
            }
        } catch (const std::system_error&) {
        }
    }

    void take(const Job& job) {
        for (int64_t i = next_++; i < job.parts; i = next_++) job.part(job.context, i, job.parts);
    }

    void work(int number) {
        uint64_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return call_ != seen && number <= active_; });
            seen = call_;
            Job job = job_;
            lock.unlock();
            take(job);
            lock.lock();
            if (--running_ == 0) done_.notify_one();
        }
    }
};

// Never destroyed: its threads sleep in it when the process ends.
std::atomic<Pool*> pool{nullptr};
std::mutex pool_mutex;

Pool& own_pool() {
    Pool* p = pool.load(std::memory_order_acquire);
    if (p) return *p;
    std::lock_guard<std::mutex> lock(pool_mutex);
    if (!pool.load()) pool.store(new Pool, std::memory_order_release);
    return *pool.load();
}

// ---- the OpenMP runtime that is already there

struct OpenMP {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned);
    int (*thread)(void);
    int (*threads)(void);
};
OpenMP openmp = {};
std::atomic<bool> use_openmp{false};

void openmp_part(void* data) {
    const Job& job = *static_cast<const Job*>(data);
    for (int64_t i = openmp.thread(), step = openmp.threads(); i < job.parts; i += step)
        job.part(job.context, i, job.parts);
}

#if defined(__linux__)

std::string openmp_path;

// The library beside torch wins if a process holds several.
int look(dl_phdr_info* info, size_t, void*) {
    const char* slash = info->dlpi_name ? strrchr(info->dlpi_name, '/') : nullptr;
    const char* file = slash ? slash + 1 : "";
    bool known =
        strncmp(file, "libgomp", 7) == 0 || strncmp(file, "libomp", 6) == 0 || strncmp(file, "libiomp5", 8) == 0;
    if (known && (openmp_path.empty() || strstr(info->dlpi_name, "/torch"))) openmp_path = info->dlpi_name;
    return 0;
}

void after_fork() {
    use_openmp = false;
    pool = nullptr;
    new (&pool_mutex) std::mutex;
}

const int fork_handler = pthread_atfork(nullptr, nullptr, after_fork);

#endif

}  // namespace

const char* adopt_openmp() {
#if defined(__linux__)
    openmp_path.clear();
    dl_iterate_phdr(look, nullptr);
    if (openmp_path.empty()) return nullptr;
    void* library = dlopen(openmp_path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    if (!library) return nullptr;
    OpenMP found = {};
    found.parallel = reinterpret_cast<decltype(found.parallel)>(dlsym(library, "GOMP_parallel"));
    found.thread = reinterpret_cast<decltype(found.thread)>(dlsym(library, "omp_get_thread_num"));
    found.threads = reinterpret_cast<decltype(found.threads)>(dlsym(library, "omp_get_num_threads"));
    if (!found.parallel || !found.thread || !found.threads) return nullptr;
    openmp = found;
    use_openmp = true;
    return openmp_path.c_str();
#else
    return nullptr;
#endif
}

void drop_openmp() { use_openmp = false; }

void parallel(int64_t parts, int threads, void (*part)(void*, int64_t, int64_t), void* context) {
    Job job = {parts, part, context};
    if (parts > 1 && use_openmp) {
        // The full team, even for fewer parts: the runtime would end the threads that a smaller team leaves out.
        openmp.parallel(openmp_part, &job, static_cast<unsigned>(threads), 0);
        return;
    }
    if (parts > 1 && own_pool().run(job, static_cast<int>(parts))) return;
    for (int64_t i = 0; i < parts; ++i) part(context, i, parts);
}

}  // namespace dropkit
