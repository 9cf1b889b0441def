// Event delivery, deployed by infra/hooks/connect_events.py after the code: Event Grid calls the
// app while the subscription is made, and the key for that call exists only once the host has
// loaded the blob extension. The key stays inside Azure Resource Manager.

@description('The function app that receives the events.')
param functionAppName string

@description('The blob-triggered function in function_app.py. A wrong name would be accepted and every event lost in silence.')
param functionName string = 'submit_upload'

param uploadAccountName string
param uploadContainerName string
param deadLetterAccountName string
param deadLetterContainerName string

@description('The system topic of the upload account. There can be only one.')
param systemTopicName string

@description('False when the topic is not ours, for example made by Defender for Storage: then it is used as it is.')
param createTopic bool

param workspaceId string

resource uploadAccount 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: uploadAccountName
}

module topic 'modules/event-topic.bicep' = {
  name: 'event-topic'
  params: {
    name: systemTopicName
    create: createTopic
    location: resourceGroup().location
    sourceAccountId: uploadAccount.id
  }
}

module deadLetterRole 'modules/dead-letter-role.bicep' = {
  name: 'dead-letter-role'
  params: {
    accountName: deadLetterAccountName
    containerName: deadLetterContainerName
    topicPrincipalId: topic.outputs.principalId
  }
}

module eventSubscription 'modules/event-subscription.bicep' = {
  name: 'event-subscription'
  params: {
    systemTopicName: topic.outputs.name
    functionAppName: functionAppName
    functionName: functionName
    uploadContainerName: uploadContainerName
    deadLetterAccountName: deadLetterAccountName
    deadLetterContainerName: deadLetterContainerName
    workspaceId: workspaceId
  }
  dependsOn: [deadLetterRole]
}
