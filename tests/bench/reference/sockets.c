/* What the sockets generator does, in C, as a yardstick for it: one job a process, no pacing, no options.
 *
 *   sockets send INTERFACE FRAMES BYTES SIGNATURE SECONDS     whole frames, sendmmsg on a packet socket
 *   sockets ring INTERFACE TAG SIGNATURE SLOTS PACKETS SECONDS  TPACKET_V2 ring, every packet accounted for,
 *                                                           from the first character on standard input on
 *   sockets udp INTERFACE TAG OFFSET PORT PACKETS SECONDS       recvmmsg on a UDP socket with SO_REUSEPORT, the
 *                                                           same account of every packet, likewise
 *
 * FRAMES is a file of frames of BYTES each, sent in turn with a sequence number behind their tag. send prints
 * packets, nanoseconds and nanoseconds of CPU time; ring and udp print frames, nanoseconds of accounting and
 * of CPU time, and frames that were overtaken.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 1024
#define SLOT 256
#define INTERVALS 1000
#define INTERVAL_NS 100000000ull
#define SAMPLED 255 /* every 256th */
#define LOOK_NS 16000000 /* as ours: to be woken by poll for each packet costs the sender more than all else */

static uint64_t now(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static int failed(const char *what)
{
	perror(what);
	exit(1);
}

static int packet_socket(const char *interface, int protocol)
{
	int s = socket(AF_PACKET, SOCK_RAW, 0);
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(protocol),
		.sll_ifindex = if_nametoindex(interface),
	};
	if (s < 0 || !address.sll_ifindex)
		failed(interface);
	if (bind(s, (struct sockaddr *)&address, sizeof address))
		failed("bind");
	return s;
}

static struct mmsghdr *headers(uint8_t *slots, int bytes)
{
	struct mmsghdr *all = calloc(SLOTS, sizeof *all);
	struct iovec *pieces = calloc(SLOTS, sizeof *pieces);
	for (int i = 0; i < SLOTS; i++) {
		pieces[i] = (struct iovec){slots + (size_t)i * bytes, bytes};
		all[i].msg_hdr.msg_iov = &pieces[i];
		all[i].msg_hdr.msg_iovlen = 1;
	}
	return all;
}

static int send_frames(char **argv)
{
	int bytes = atoi(argv[2]), signature = atoi(argv[3]), one = 1;
	uint64_t span = strtod(argv[4], NULL) * 1e9, sequence = 0, row = 0;
	struct stat size;
	FILE *file = fopen(argv[1], "r");
	if (!file || fstat(fileno(file), &size))
		failed(argv[1]);
	uint8_t *frames = malloc(size.st_size);
	uint64_t rows = size.st_size / bytes;
	if (fread(frames, bytes, rows, file) != rows)
		failed(argv[1]);
	int s = packet_socket(argv[0], 0);
	if (setsockopt(s, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one))
		failed("PACKET_QDISC_BYPASS");
	uint8_t *slots = malloc((size_t)SLOTS * bytes);
	struct mmsghdr *messages = headers(slots, bytes);
	uint64_t start = now(CLOCK_MONOTONIC), end = start + span;
	while (now(CLOCK_MONOTONIC) < end) {
		for (int i = 0; i < SLOTS; i++) {
			uint64_t number = htobe64(sequence + i);
			memcpy(slots + (size_t)i * bytes, frames + row * bytes, bytes);
			memcpy(slots + (size_t)i * bytes + signature + 4, &number, 8);
			row = row + 1 == rows ? 0 : row + 1;
		}
		for (int done = 0; done < SLOTS;) {
			int taken = sendmmsg(s, messages + done, SLOTS - done, MSG_DONTWAIT);
			if (taken < 0 && errno != ENOBUFS && errno != EAGAIN)
				failed("sendmmsg");
			if (taken > 0)
				done += taken;
		}
		sequence += SLOTS;
	}
	printf("%llu %llu %llu\n", (unsigned long long)sequence,
	       (unsigned long long)(now(CLOCK_MONOTONIC) - start),
	       (unsigned long long)now(CLOCK_PROCESS_CPUTIME_ID));
	return 0;
}

struct account {
	uint8_t *seen;
	uint64_t *intervals, *times, packets, start, frames, late, newest;
};

static struct account account_of(uint64_t packets)
{
	return (struct account){
		.seen = calloc(packets, 1),
		.intervals = calloc(INTERVALS, 8),
		.times = calloc(packets / (SAMPLED + 1) + 1, 8),
		.packets = packets,
		.start = now(CLOCK_REALTIME),
	};
}

static inline void enter(struct account *account, const uint8_t *number, uint64_t when)
{
	uint64_t packet, interval = (when - account->start) / INTERVAL_NS;
	memcpy(&packet, number, 8);
	packet = be64toh(packet);
	if (packet >= account->packets)
		return;
	account->seen[packet] = 1;
	account->intervals[interval < INTERVALS ? interval : INTERVALS - 1]++;
	if (packet < account->newest)
		account->late++;
	else
		account->newest = packet;
	if (!(packet & SAMPLED) && !account->times[packet / (SAMPLED + 1)])
		account->times[packet / (SAMPLED + 1)] = when;
	account->frames++;
}

static int tell(const struct account *account, uint64_t busy)
{
	printf("%llu %llu %llu %llu\n", (unsigned long long)account->frames, (unsigned long long)busy,
	       (unsigned long long)now(CLOCK_PROCESS_CPUTIME_ID), (unsigned long long)account->late);
	return 0;
}

static void wait_for_word(void)
{
	puts("ready");
	fflush(stdout);
	getchar();
}

static int capture(char **argv)
{
	uint32_t tag = strtoul(argv[1], NULL, 0), signature = atoi(argv[2]), slots = atoi(argv[3]);
	uint64_t packets = strtoull(argv[4], NULL, 0), span = strtod(argv[5], NULL) * 1e9;
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, signature),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, tag, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, signature + 12),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog filter = {4, code};
	struct tpacket_req shape = {4096 * SLOT, slots / 4096, SLOT, slots};
	int version = TPACKET_V2, one = 1, s = socket(AF_PACKET, SOCK_RAW, 0);
	if (s < 0 || setsockopt(s, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) ||
	    setsockopt(s, SOL_PACKET, PACKET_VERSION, &version, sizeof version) ||
	    setsockopt(s, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) ||
	    setsockopt(s, SOL_PACKET, PACKET_RX_RING, &shape, sizeof shape))
		failed("packet socket");
	uint8_t *ring = mmap(NULL, (size_t)slots * SLOT, PROT_READ | PROT_WRITE, MAP_SHARED, s, 0);
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = if_nametoindex(argv[0]),
	};
	if (ring == MAP_FAILED || bind(s, (struct sockaddr *)&address, sizeof address))
		failed(argv[0]);
	struct timespec pause = {0, LOOK_NS};
	wait_for_word();
	struct account account = account_of(packets);
	uint64_t busy = 0, end = now(CLOCK_MONOTONIC) + span;
	for (uint32_t head = 0; now(CLOCK_MONOTONIC) < end; nanosleep(&pause, NULL)) {
		uint64_t began = now(CLOCK_MONOTONIC), before = account.frames;
		for (;;) {
			struct tpacket2_hdr *slot = (void *)(ring + (size_t)head * SLOT);
			if (!(*(volatile uint32_t *)&slot->tp_status & TP_STATUS_USER))
				break;
			enter(&account, (uint8_t *)slot + slot->tp_mac + signature + 4,
			      slot->tp_sec * 1000000000ull + slot->tp_nsec);
			slot->tp_status = 0;
			head = head + 1 == slots ? 0 : head + 1;
		}
		busy += account.frames > before ? now(CLOCK_MONOTONIC) - began : 0;
	}
	return tell(&account, busy);
}

static int receive_datagrams(char **argv)
{
	uint32_t tag = htonl(strtoul(argv[1], NULL, 0)), offset = atoi(argv[2]);
	uint64_t span = strtod(argv[5], NULL) * 1e9;
	int off = 0, one = 1, room = 65536 * 1152, s = socket(AF_INET6, SOCK_DGRAM, 0);
	struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(argv[3]))};
	if (s < 0 || setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) ||
	    setsockopt(s, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) ||
	    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) ||
	    setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, argv[0], strlen(argv[0])) ||
	    bind(s, (struct sockaddr *)&address, sizeof address))
		failed("UDP socket");
	uint8_t *slots = calloc(SLOTS, 64);
	struct mmsghdr *messages = headers(slots, 64);
	struct timespec pause = {0, LOOK_NS};
	wait_for_word();
	struct account account = account_of(strtoull(argv[4], NULL, 0));
	for (uint64_t end = now(CLOCK_MONOTONIC) + span; now(CLOCK_MONOTONIC) < end;) {
		int taken = recvmmsg(s, messages, SLOTS, MSG_DONTWAIT, NULL);
		uint64_t when = now(CLOCK_REALTIME);
		for (int i = 0; i < taken; i++)
			if (messages[i].msg_len >= offset + 12 && !memcmp(slots + i * 64 + offset, &tag, 4))
				enter(&account, slots + i * 64 + offset + 4, when);
		if (taken <= 0)
			nanosleep(&pause, NULL);
	}
	return tell(&account, 0);
}

int main(int argc, char **argv)
{
	if (argc == 7 && !strcmp(argv[1], "send"))
		return send_frames(argv + 2);
	if (argc == 8 && !strcmp(argv[1], "ring"))
		return capture(argv + 2);
	if (argc == 8 && !strcmp(argv[1], "udp"))
		return receive_datagrams(argv + 2);
	fprintf(stderr, "sockets: found %d arguments, expected a job and its own; see the source\n", argc - 1);
	return 2;
}
