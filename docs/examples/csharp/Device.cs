// A Signalbox device with MQTTnet: .NET 8, `dotnet add package MQTTnet --version 4.3.7.1207`.
//   SIGNALBOX_CLIENT_ID=pda-7 SIGNALBOX_CLIENT_KEY=sbk_... dotnet run
// The journal is a file with one line per step, flushed before anybody is told. One process per journal.
using System.Collections.Concurrent;
using System.Diagnostics;
using System.Text;
using System.Text.Json;
using MQTTnet;
using MQTTnet.Client;
using MQTTnet.Formatter;
using MQTTnet.Protocol;

var clientId = Environment.GetEnvironmentVariable("SIGNALBOX_CLIENT_ID")!;
var clientKey = Environment.GetEnvironmentVariable("SIGNALBOX_CLIENT_KEY")!;
var host = Environment.GetEnvironmentVariable("MQTT_HOST") ?? "127.0.0.1";
var journal = new Journal($"{clientId}.journal");
var work = new BlockingCollection<(JsonElement Command, long Deadline)>();
var running = new ConcurrentDictionary<string, (int Attempt, CancellationTokenSource Cancel)>();
using var mqtt = new MqttFactory().CreateMqttClient();

mqtt.ApplicationMessageReceivedAsync += async received =>
{
    // The PUBACK is ours to send, after the journal. An exception leaves it unsent: the server asks again.
    received.AutoAcknowledge = false;
    var topic = received.ApplicationMessage.Topic;
    var body = JsonDocument.Parse(received.ApplicationMessage.PayloadSegment).RootElement.Clone();
    if (topic == $"signalbox/v1/clients/{clientId}/config")
        foreach (var zone in body.GetProperty("zones").EnumerateArray()) // one we lost is unsubscribed by the server
            _ = Subscribe($"signalbox/v1/zones/{zone.GetString()}/commands"); // not awaited: its SUBACK comes on this very loop
    else if (topic == $"signalbox/v1/clients/{clientId}/replies")
        Console.Error.WriteLine($"the server could not use a message: {body}");
    else if (body.GetProperty("type").GetString() == "command") TakeCommand(body);
    else if (body.GetProperty("type").GetString() == "cancel") TakeCancel(body);
    await received.AcknowledgeAsync(CancellationToken.None);
};

journal.Recover();
_ = Task.Run(WorkAsync);
for (; ; await Task.Delay(1000 + Random.Shared.Next(1000)))
{
    try
    {
        var lost = new TaskCompletionSource();
        Func<MqttClientDisconnectedEventArgs, Task> ended = _ => { lost.TrySetResult(); return Task.CompletedTask; };
        mqtt.DisconnectedAsync += ended;
        await mqtt.ConnectAsync(new MqttClientOptionsBuilder()
            .WithTcpServer(host, 1883)
            .WithProtocolVersion(MqttProtocolVersion.V311) // MQTT 5 is refused
            .WithClientId(clientId).WithCredentials(clientId, clientKey) // client id = user name
            .WithCleanSession().WithKeepAlivePeriod(TimeSpan.FromSeconds(30)).Build());
        // The status first: the server must know the journal before it hands anything over.
        await Publish($"signalbox/v1/clients/{clientId}/status",
            new { state = "online", version = "1.0", journalId = journal.Id }, retain: true);
        await Subscribe($"signalbox/v1/clients/{clientId}/commands");
        await Subscribe("signalbox/v1/broadcast/commands");
        await Subscribe($"signalbox/v1/clients/{clientId}/config");
        await Subscribe($"signalbox/v1/clients/{clientId}/replies");
        while (!lost.Task.IsCompleted)
        {
            foreach (var entry in journal.Unreported())
            {
                await Publish($"signalbox/v1/clients/{clientId}/commands/{entry.Id}/status", entry.Report!.Value);
                journal.Acknowledged(entry); // PublishAsync returned: PUBACK, the server has committed it
            }
            await Task.WhenAny(lost.Task, journal.Changed.WaitAsync(TimeSpan.FromSeconds(5)));
        }
        mqtt.DisconnectedAsync -= ended;
    }
    catch (Exception error) // CONNACK 4: bad key, 5: disabled or a foreign client id, 3: the database is down
    {
        Console.Error.WriteLine(error.Message);
    }
}

Task Publish(string topic, object body, bool retain = false) => mqtt.PublishAsync(new MqttApplicationMessageBuilder()
    .WithTopic(topic).WithPayload(JsonSerializer.SerializeToUtf8Bytes(body)).WithRetainFlag(retain)
    .WithQualityOfServiceLevel(MqttQualityOfServiceLevel.AtLeastOnce).Build());

async Task Subscribe(string topic)
{
    var answer = await mqtt.SubscribeAsync(topic, MqttQualityOfServiceLevel.AtLeastOnce);
    foreach (var item in answer.Items)
        if ((int)item.ResultCode >= 128) Console.Error.WriteLine($"{topic} is refused: the server's log says why");
}

void TakeCommand(JsonElement command)
{
    var (id, attempt) = KeyOf(command);
    if (!journal.Accept(id, attempt)) return; // sent again: never run again, an outcome is told again
    // Seconds from the arrival, on our monotonic clock: nobody compares wall clocks.
    var seconds = command.GetProperty("expiresInSeconds").GetDouble();
    work.Add((command, Stopwatch.GetTimestamp() + (long)(seconds * Stopwatch.Frequency)));
}

void TakeCancel(JsonElement cancel)
{
    var (id, attempt) = KeyOf(cancel);
    var asked = cancel.TryGetProperty("journalId", out var name) ? name.GetString() : null;
    var runs = running.TryGetValue(id, out var current) && current.Attempt <= attempt;
    if (runs) current.Cancel.Cancel(); // what it makes of that is its outcome
    journal.Cancel(id, attempt, asked == journal.Id, runs);
}

// One command after the other: never two attempts of an id at the same time.
async Task WorkAsync()
{
    foreach (var (command, deadline) in work.GetConsumingEnumerable())
    {
        var (id, attempt) = KeyOf(command);
        using var cancel = new CancellationTokenSource();
        running[id] = (attempt, cancel);
        if (journal.Start(id, attempt, expired: Stopwatch.GetTimestamp() >= deadline)) // from here on a crash: outcome_unknown
            journal.Finish(id, attempt, await Perform(command, cancel.Token));
        running.TryRemove(id, out _);
    }
}

async Task<Dictionary<string, object>> Perform(JsonElement command, CancellationToken cancel)
{
    var (id, attempt) = KeyOf(command);
    Task Running(object progress) => mqtt.IsConnected // progress that cannot be sent now is not worth keeping
        ? Publish($"signalbox/v1/clients/{clientId}/commands/{id}/status", new { status = "running", attempt, progress })
        : Task.CompletedTask;
    try
    {
        await Running(new { done = 0 });
        switch (command.GetProperty("action").GetString())
        {
            case "pick":
                await File.AppendAllTextAsync("picked.log", command.GetProperty("payload") + "\n", cancel);
                return new() { ["status"] = "completed", ["result"] = new { picked = 1 } };
            default:
                return Failure("rejected", "UNKNOWN_ACTION", "this device does not do that");
        }
    }
    catch (OperationCanceledException) { return new() { ["status"] = "cancelled" }; } // and nothing was done
    catch (Exception error) { return Failure("failed", error.GetType().Name, error.Message); }
}

static (string, int) KeyOf(JsonElement message) =>
    (message.GetProperty("id").GetString()!, message.GetProperty("attempt").GetInt32());

static Dictionary<string, object> Failure(string status, string code, string message) =>
    new() { ["status"] = status, ["error"] = new { code, message } };

record Entry(string Id, int Attempt, string State, JsonElement? Report = null, bool Reported = false);

/// What happened to each (id, attempt). States: accepted, started, waiting, superseded, settled (with its report).
class Journal
{
    readonly Dictionary<(string, int), Entry> entries = new();
    readonly FileStream file;
    public string Id { get; }
    public SemaphoreSlim Changed { get; } = new(0);

    public Journal(string path)
    {
        file = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        var lines = new StreamReader(file, leaveOpen: true).ReadToEnd().Split('\n');
        // A power cut may leave half a line at the end: nobody was told of it.
        file.SetLength(lines[..^1].Sum(line => Encoding.UTF8.GetByteCount(line) + 1));
        file.Seek(0, SeekOrigin.End);
        foreach (var line in lines[..^1].Skip(1)) Remember(JsonSerializer.Deserialize<Entry>(line)!);
        Id = lines.Length > 1 ? lines[0] : Guid.NewGuid().ToString(); // names this memory: a new file is a new one
        if (lines.Length == 1) Write(Id);
    }

    void Remember(Entry entry) => entries[(entry.Id, entry.Attempt)] = entry;
    void Write(string line) { file.Write(Encoding.UTF8.GetBytes(line + "\n")); file.Flush(flushToDisk: true); }
    void Keep(Entry entry) { Write(JsonSerializer.Serialize(entry)); Remember(entry); }
    Entry? Find(string id, int attempt) => entries.GetValueOrDefault((id, attempt));
    List<Entry> Of(string id) => entries.Values.Where(entry => entry.Id == id).OrderBy(entry => entry.Attempt).ToList();
    static string? StatusOf(Entry entry) => entry.Report?.GetProperty("status").GetString();

    void Settle(string id, int attempt, Dictionary<string, object> report)
    {
        report["attempt"] = attempt;
        Keep(new Entry(id, attempt, "settled", JsonSerializer.SerializeToElement(report)));
        Changed.Release();
    }

    /// Not started and never will be. Its report speaks for the id: what an older attempt did, or may have done, counts.
    void GiveUp(string id, int attempt, Dictionary<string, object> report)
    {
        var older = Of(id).Where(entry => entry.Attempt < attempt).ToList();
        var decisive = older.Find(entry => StatusOf(entry) == "completed") ?? older.Find(entry => StatusOf(entry) == "outcome_unknown");
        Settle(id, attempt, decisive?.Report?.Deserialize<Dictionary<string, object>>() ?? report);
    }

    void TellAgain(Entry entry)
    {
        if (entry.Report is not null) Keep(entry with { Reported = false });
        Changed.Release();
    }

    static Dictionary<string, object> Unknown(string code, string message) =>
        new() { ["status"] = "outcome_unknown", ["error"] = new { code, message } };

    public bool Accept(string id, int attempt)
    {
        lock (entries)
        {
            if (Find(id, attempt) is { } known) { TellAgain(known); return false; }
            var newer = Of(id).Exists(entry => entry.Attempt > attempt);
            foreach (var older in Of(id).Where(entry => entry.State == "accepted")) Keep(older with { State = "superseded" });
            Keep(new Entry(id, attempt, newer ? "superseded" : "accepted"));
            return !newer;
        }
    }

    public void Cancel(string id, int attempt, bool ownJournal, bool olderRuns)
    {
        lock (entries)
        {
            var known = Find(id, attempt);
            if (known?.State == "accepted" || (known is null && ownJournal))
            {
                if (olderRuns && Of(id).Exists(entry => entry.State == "started")) Keep(new Entry(id, attempt, "waiting"));
                else GiveUp(id, attempt, new() { ["status"] = "cancelled" });
            }
            else if (known is null) Settle(id, attempt, Unknown("NOT_REMEMBERED", "handed to another memory, or to none"));
            else TellAgain(known);
        }
    }

    public bool Start(string id, int attempt, bool expired)
    {
        lock (entries)
        {
            if (Find(id, attempt)?.State != "accepted") return false; // cancelled or superseded meanwhile
            if (expired || Of(id).Exists(entry => StatusOf(entry) == "completed"))
            {
                GiveUp(id, attempt, new() { ["status"] = "expired" }); // completed before: GiveUp says so
                return false;
            }
            Keep(new Entry(id, attempt, "started"));
            return true;
        }
    }

    public void Finish(string id, int attempt, Dictionary<string, object> report)
    {
        lock (entries)
        {
            Settle(id, attempt, report);
            foreach (var waiting in Of(id).Where(entry => entry.State == "waiting"))
                GiveUp(id, waiting.Attempt, new() { ["status"] = "cancelled" });
        }
    }

    /// Before anything new: what the last process left in the middle.
    public void Recover()
    {
        foreach (var entry in entries.Values.OrderBy(entry => entry.Attempt).ToList())
        {
            if (entry.State is "started" or "waiting")
                Settle(entry.Id, entry.Attempt, Unknown("INTERRUPTED", "the device ended in the middle"));
            if (entry.State == "accepted") // how long ago, and so whether it has expired, cannot be known
                GiveUp(entry.Id, entry.Attempt, new()
                    { ["status"] = "failed", ["error"] = new { code = "DEVICE_RESTARTED", message = "never started" } });
        }
    }

    public List<Entry> Unreported()
    {
        lock (entries) return entries.Values.Where(entry => entry.Report is not null && !entry.Reported).ToList();
    }

    public void Acknowledged(Entry entry)
    {
        lock (entries) Keep(entry with { Reported = true });
    }
}
