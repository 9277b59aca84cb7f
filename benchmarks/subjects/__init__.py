"""The contenders: one file each with a class `Subject`, imported in the contender's own environment only.

open(url)            make an agent with the tool `add` and a model at this OpenAI-compatible address
run(question)        the answer to a question, through a tool call; not streamed, unless the contender always streams
stream(message)      the deltas of an answer
idle(count, folder)  so many agents that are ready to answer; files go into the folder
serve(port, folder)  answer `POST /chat` until cancelled
"""
